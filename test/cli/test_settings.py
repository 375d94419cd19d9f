from __future__ import annotations

import argparse

import pytest

from yolact_ros.cli.inference import add_segmenter_arguments, read_postprocess
from yolact_ros.config import REFERENCE_POSTPROCESS, PostprocessConfig
from yolact_ros.errors import ConfigError

DEFAULTS = PostprocessConfig(score_threshold=0.2)


def settings(*words):
    parser = argparse.ArgumentParser()
    add_segmenter_arguments(parser, DEFAULTS)
    return read_postprocess(parser.parse_args(words), DEFAULTS)


def test_without_flags_the_defaults_apply():
    assert settings() == DEFAULTS


def test_a_flag_changes_its_setting_and_no_other():
    changed = settings("--nms", "greedy", "--no-crop-masks", "--max-detections", "7")
    assert changed == PostprocessConfig(
        score_threshold=0.2, nms="greedy", crop_masks=False, max_detections=7
    )


def test_reference_selects_the_authors_settings_and_flags_override_them():
    assert settings("--reference") == REFERENCE_POSTPROCESS
    changed = settings("--reference", "--score-threshold", "0.2")
    assert (changed.score_threshold, changed.all_classes) == (0.2, True)


def test_a_value_out_of_range_is_reported():
    with pytest.raises(ConfigError, match="top_k is 0; expected a value from 1 to 5000"):
        settings("--top-k", "0")


def test_every_setting_has_a_flag_with_its_description_and_default(capsys):
    with pytest.raises(SystemExit):
        settings("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "minimum class score of a detection (0 to 1; default: 0.2)" in text
    assert "(0 = chosen by the backend; 0 to 256; default: 0)" in text
    assert "--no-rescore-masks" in text
