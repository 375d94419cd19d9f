"""Priors match hand-made numbers, and encoded boxes survive a round trip."""

from __future__ import annotations

import numpy as np
import pytest
import recorded

from yolact_ros.priors import make_priors
from yolact_ros.variants import VARIANTS, YOLACT_PLUS_RESNET50, YOLACT_RESNET50


def test_yolact_has_the_published_number_of_priors():
    assert make_priors(YOLACT_RESNET50).shape == (19248, 4)
    assert make_priors(YOLACT_PLUS_RESNET50).shape == (57744, 4)


def test_first_cell_of_yolact_has_three_squares_at_its_centre():
    expected_centre = 0.5 / 69
    sides = np.array([24, 24 * 0.5**0.5, 24 * 2**0.5]) / 550
    first = make_priors(YOLACT_RESNET50)[:3]
    np.testing.assert_allclose(first[:, :2], expected_centre, rtol=1e-6)
    np.testing.assert_allclose(first[:, 2], sides, rtol=1e-6)
    np.testing.assert_allclose(first[:, 3], sides, rtol=1e-6)


def test_ratio_multiplies_the_width_in_yolact_plus():
    priors = make_priors(YOLACT_PLUS_RESNET50)[:9] * 550
    root = 2**0.5
    np.testing.assert_allclose(priors[0, 2:], [24, 24], rtol=1e-5)
    np.testing.assert_allclose(priors[1, 2:], [24 / root, 24 * root], rtol=1e-5)
    np.testing.assert_allclose(priors[2, 2:], [24 * root, 24 / root], rtol=1e-5)
    np.testing.assert_allclose(priors[3, 2:], [30.238, 30.238], rtol=1e-5)


def test_priors_run_along_rows_first():
    priors = make_priors(YOLACT_RESNET50)
    assert priors[3, 0] == pytest.approx(1.5 / 69)  # next cell: one column on
    assert priors[3, 1] == pytest.approx(0.5 / 69)
    assert priors[69 * 3, 0] == pytest.approx(0.5 / 69)  # next row
    assert priors[69 * 3, 1] == pytest.approx(1.5 / 69)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_priors_equal_the_number_of_cells_of_every_level(name):
    model = VARIANTS[name]
    cells = sum(height * width for height, width in model.feature_sizes)
    assert len(make_priors(model)) == cells * model.priors_per_cell


@pytest.mark.parametrize("case", ["yolact_resnet50", "yolact_plus_resnet50"])
def test_priors_equal_the_reference(case):
    golden = recorded.arrays(case)["priors__every230"]
    np.testing.assert_allclose(make_priors(VARIANTS[case])[::230], golden, rtol=1e-6, atol=1e-8)
