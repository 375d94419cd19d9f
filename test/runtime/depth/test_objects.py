from __future__ import annotations

import numpy as np
import pytest

from yolact_ros.errors import MessageError
from yolact_ros.runtime.depth.objects import (
    DepthView,
    Intrinsics,
    pixel_rays,
    place_object,
    place_objects,
    points_of,
    view_of,
)
from yolact_ros.runtime.detections import Detections

SIZE = (120, 160)
PINHOLE = Intrinsics(SIZE, (200.0, 0, 80, 0, 200, 60, 0, 0, 1))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_points_are_finite_whatever_the_rays_are(bad):
    metres = np.full((40, 40), 2.0, np.float32)
    rays = np.zeros((40, 40, 2), np.float32)
    rays[:10, :, 0] = bad
    view = view_of(metres, rays)
    assert np.isnan(view.metres[:10]).all() and (view.metres[10:] == 2.0).all()
    found = place_object(np.ones((40, 40), bool), np.array([0, 0]), view)
    assert np.isfinite([*found.centroid, *found.low, *found.high]).all()


def test_a_calibration_with_infinite_values_is_reported():
    for matrix in ((np.nan, 0, 1, 0, 1, 1, 0, 0, 1), (2, 0, np.nan, 0, 2, 1, 0, 0, 1)):
        with pytest.raises(MessageError, match="infinite or NaN values"):
            pixel_rays(Intrinsics((4, 4), matrix))
    with pytest.raises(MessageError, match="infinite or NaN values"):
        pixel_rays(Intrinsics((4, 4), (2, 0, 1, 0, 2, 1, 0, 0, 1), "plumb_bob", (np.inf, 0, 0, 0)))


def test_rays_of_a_pinhole_are_those_of_its_formula():
    rays = pixel_rays(PINHOLE)
    assert rays.shape == (*SIZE, 2) and rays.dtype == np.float32
    np.testing.assert_allclose(rays[60, 80], [0, 0])
    np.testing.assert_allclose(rays[10, 100], [20 / 200, -50 / 200], rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        ("plumb_bob", (-0.2, 0.05, 0.001, -0.002, 0.0)),
        ("rational_polynomial", (0.1, -0.05, 0.001, 0.0, 0.01, 0.12, -0.03, 0.0)),
        ("equidistant", (0.05, -0.01, 0.002, 0.0)),
    ],
)
def test_projecting_the_rays_of_a_distorted_camera_yields_its_pixels(model, distortion):
    cv2 = pytest.importorskip("cv2")
    intrinsics = Intrinsics(SIZE, PINHOLE.matrix, model, distortion)
    rays = pixel_rays(intrinsics).reshape(-1, 1, 2).astype(np.float64)
    points = np.concatenate([rays, np.ones((len(rays), 1, 1))], axis=2)
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    still = np.zeros((3, 1))
    matrix = np.array(PINHOLE.matrix).reshape(3, 3)
    pixels, _ = project(points, still, still, matrix, np.array(distortion))
    expected = np.stack(np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0])), axis=-1)
    np.testing.assert_allclose(pixels.reshape(*SIZE, 2), expected, atol=0.05)


def test_a_camera_without_calibration_or_with_an_unknown_model_is_reported():
    with pytest.raises(MessageError, match="not calibrated"):
        pixel_rays(Intrinsics(SIZE, (0.0,) * 9))
    with pytest.raises(MessageError, match="'thin_prism'.*plumb_bob"):
        pixel_rays(Intrinsics(SIZE, PINHOLE.matrix, "thin_prism", (0.1,)))
    pixel_rays(Intrinsics(SIZE, PINHOLE.matrix, "thin_prism", (0.0,)))
    for model in ("plumb_bob", "equidistant"):
        with pytest.raises(MessageError, match="3 distortion coefficients"):
            pixel_rays(Intrinsics(SIZE, PINHOLE.matrix, model, (0.1, 0.2, 0.3)))


def sphere_before_a_wall(centre, radius) -> tuple[DepthView, np.ndarray]:
    """Solve for the depth of a sphere in front of a wall at 2 m; return it with the mask."""
    rays = pixel_rays(PINHOLE)
    directions = np.dstack([rays, np.ones(SIZE)]).astype(np.float64)
    a = (directions**2).sum(axis=2)
    b = directions @ centre
    c = np.dot(centre, centre) - radius**2
    with np.errstate(invalid="ignore"):
        near = (b - np.sqrt(b**2 - a * c)) / a
    hit = np.isfinite(near)
    return DepthView(np.where(hit, near, 2.0).astype(np.float32), rays), hit


def test_a_sphere_is_where_it_was_put_though_its_mask_spills_onto_the_wall():
    centre, radius = np.array([0.1, -0.05, 0.9]), 0.12
    view, hit = sphere_before_a_wall(centre, radius)
    true = np.dstack([view.rays * view.metres[..., None], view.metres])[hit]
    spilled = np.zeros(SIZE, bool)
    for down in (-2, 0, 2):
        for right in (-2, 0, 2):
            spilled |= np.roll(hit, (down, right), (0, 1))
    view.metres[::7, ::5] = np.nan  # holes, as real sensors have them
    place = place_object(spilled, np.array([0, 0]), view)
    assert np.linalg.norm(place.centroid - true.mean(axis=0)) < 0.005
    np.testing.assert_allclose(place.low, true.min(axis=0), atol=0.008)
    np.testing.assert_allclose(place.high[:2], true.max(axis=0)[:2], atol=0.008)
    assert place.high[2] == pytest.approx(true[:, 2].max(), abs=0.02), "its rim is steep"
    points = points_of(view.rays, view.metres, place.inside)
    distances = np.linalg.norm(points.T - centre, axis=1)
    assert (np.abs(distances - radius) < 1e-4).all(), "every point lies on the sphere"
    known = hit & np.isfinite(view.metres)
    assert len(distances) == np.count_nonzero(place.inside) > 0.9 * np.count_nonzero(known)


def test_a_crop_yields_the_same_position_as_the_whole_mask():
    view, hit = sphere_before_a_wall(np.array([0.0, 0.0, 0.8]), 0.1)
    rows, columns = np.nonzero(hit)
    origin = np.array([columns.min(), rows.min()])
    crop = hit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    whole = place_object(hit, np.array([0, 0]), view)
    part = place_object(crop, origin, view)
    assert part.origin == (columns.min(), rows.min())
    np.testing.assert_array_equal(
        part.inside, whole.inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    )
    np.testing.assert_allclose(part.centroid, whole.centroid, atol=1e-3)


def test_a_large_object_is_where_all_of_its_points_are():
    """Only 2500 of 350000 points are used; the object is 78 cm wide."""
    rays = pixel_rays(Intrinsics((600, 800), (900.0, 0, 400, 0, 900, 300, 0, 0, 1)))
    metres = (1.0 + 0.1 * rays[..., 0] + 0.05 * np.sin(50 * rays[..., 1])).astype(np.float32)
    mask = np.ones((500, 700), bool)
    place = place_object(mask, np.array([60, 40]), DepthView(metres, rays))
    region = slice(40, 540), slice(60, 760)
    points = points_of(rays[region], metres[region], mask)
    np.testing.assert_allclose(place.centroid, points.mean(axis=1), atol=4e-3)
    low, high = np.percentile(points, (0.5, 99.5), axis=1)
    np.testing.assert_allclose([place.low, place.high], [low, high], atol=8e-3)
    assert place.inside.all()


def test_objects_without_depth_have_no_position():
    view = DepthView(np.full(SIZE, np.nan, np.float32), pixel_rays(PINHOLE))
    rois = np.array([[0, 0, 20, 20], [5, 5, 5, 5]], np.int32)
    found = Detections(
        boxes=rois.astype(np.float32),
        scores=np.ones(2, np.float32),
        mask_scores=np.ones(2, np.float32),
        class_ids=np.zeros(2, np.int64),
        mask_rois=rois,
        masks=(np.ones((20, 20), bool), np.zeros((0, 0), bool)),
        image_size=SIZE,
    )
    assert place_objects(found, view) == [None, None]
    assert place_objects(Detections.empty(SIZE), view) == []
    view.metres[:3, :3] = 1.0
    assert place_objects(found, view) == [None, None], "nine points are too few"
    with pytest.raises(ValueError, match="do not fit"):
        place_objects(Detections.empty((10, 10)), view)


def test_a_thin_object_of_a_few_pixels_is_located_by_its_whole_mask():
    view = DepthView(np.full(SIZE, 1.5, np.float32), pixel_rays(PINHOLE))
    place = place_object(np.ones((2, 20), bool), np.array([30, 40]), view)
    assert place.centroid[2] == pytest.approx(1.5)
    assert np.count_nonzero(place.inside) == 40
