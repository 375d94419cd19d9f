"""Libraries are compared on a bundle; the best one is stored, and read by `backend: auto`."""

from __future__ import annotations

import dataclasses
import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolact_ros.cli.main import main
from yolact_ros.config import BackendConfig, ModelConfig, PostprocessConfig
from yolact_ros.errors import BackendError, ConfigError
from yolact_ros.evaluate.backend_comparison import (
    ComparisonRow,
    best_choice,
    compare_backends,
    matched_iou,
)
from yolact_ros.evaluate.speed import Times
from yolact_ros.runtime.backends import open as choice
from yolact_ros.runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_ros.runtime.backends.open import open_backend
from yolact_ros.runtime.detections import Detections

REPOSITORY = Path(__file__).resolve().parents[2]
OPENVINO = BackendConfig("openvino")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def rows_of(masks, class_ids):
    """Return detections with one mask per (x1, x2), in an image one pixel high."""
    n = len(masks)
    scores = np.ones(n, np.float32)
    rois = np.array([(a, 0, b, 1) for a, b in masks], np.int32).reshape(-1, 4)
    return Detections(
        boxes=rois.astype(np.float32),
        scores=scores,
        mask_scores=scores,
        class_ids=np.array(class_ids, np.int64),
        mask_rois=rois,
        masks=tuple(np.ones((1, b - a), bool) for a, b in masks),
        image_size=(1, 100),
    )


def row(ms, *, model="m", ap=None, agreement=1.0, config=OPENVINO):
    return ComparisonRow(model, config, "fp32", Times(ms, ms, ms, ms), ms / 10, agreement, ap)


def test_agreement_by_hand():
    first = rows_of([(0, 10), (20, 30), (50, 60)], [0, 0, 1])
    # 8 of 10 pixels; another class; 4 of 16 pixels, which is too few; one more.
    second = rows_of([(0, 8), (20, 30), (56, 66), (80, 90)], [0, 1, 1, 0])
    assert matched_iou(first, second) == (pytest.approx(0.8), 3.5)
    assert matched_iou(first, first) == (3.0, 3.0)
    assert matched_iou(rows_of([], []), first) == (0.0, 1.5)


def test_a_precision_that_costs_accuracy_is_not_chosen():
    half = BackendConfig("openvino", precision="bf16")
    first = row(10, ap=0.40, config=BackendConfig("onnxruntime"))
    assert best_choice([first, row(5, ap=0.396, config=half)]) == half
    assert best_choice([first, row(5, ap=0.394, config=half)]) == first.config
    assert best_choice([first, row(5, ap=0.4, model="int8")]) == first.config  # another bundle
    assert best_choice([first, row(9.9, ap=0.4)]) == first.config  # noise
    plain = row(10, config=BackendConfig("onnxruntime"))
    assert best_choice([plain, row(5, config=half)]) == plain.config  # accuracy unknown
    assert best_choice([plain, row(5)]) == OPENVINO
    assert best_choice([plain, row(5, agreement=0.9)]) == plain.config


def test_auto_uses_only_the_stored_choice(tiny_bundle, caplog):
    pytest.importorskip("openvino")
    from yolact_ros.runtime.backends.openvino import OpenVinoBackend

    def opened(**settings):
        return type(open_backend(tiny_bundle.folder, BackendConfig(**settings))[0])

    assert opened() is OnnxRuntimeBackend
    path = choice.store_choice(tiny_bundle.description.identity, OPENVINO)
    assert opened() is OpenVinoBackend
    assert open_backend(tiny_bundle.folder, BackendConfig(threads=1))[0].threads == 1
    assert opened(backend="onnxruntime") is OnnxRuntimeBackend
    for content in ("", "[1]", "{}", '{"backend": "abacus", "provider": "", "precision": ""}'):
        path.write_text(content)
        assert opened() is OnnxRuntimeBackend
    assert caplog.text.count("Ignoring") == 4


def test_a_choice_whose_library_is_missing_is_ignored(tiny_bundle, monkeypatch, caplog):
    choice.store_choice(tiny_bundle.description.identity, OPENVINO)
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    assert choice.candidates(tiny_bundle)[0] == BackendConfig("onnxruntime")
    assert isinstance(open_backend(tiny_bundle.folder)[0], OnnxRuntimeBackend)
    assert "which is not available here" in caplog.text


def test_a_choice_that_cannot_be_stored_is_reported(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(BackendError, match="cannot be stored"):
        choice.store_choice("0123", OPENVINO)


def test_every_backend_is_measured_and_failures_are_named(tiny_bundle, monkeypatch):
    ways = [BackendConfig("onnxruntime"), BackendConfig("onnxruntime", provider="cuda")]
    monkeypatch.setattr("yolact_ros.evaluate.backend_comparison.candidates", lambda _: ways)
    images = [np.zeros((96, 120, 3), np.uint8)] * 8
    result = compare_backends(
        {"tiny": tiny_bundle.folder},
        images,
        frames=2,
        threads=(1, 2),
        postprocess=PostprocessConfig(),
    )
    assert [r.config.threads for r in result.rows] == [1, 2]
    assert all(r.agreement == r.ratio == 1.0 for r in result.rows)
    assert len(result.failures) == 1 and "CUDAExecutionProvider" in result.failures[0]


def test_bundles_of_other_classes_are_refused(tiny_bundle, tmp_path, monkeypatch):
    from types import SimpleNamespace

    other = SimpleNamespace(
        description=SimpleNamespace(model=ModelConfig(name="x", classes=("fork",)))
    )
    bundles = {tiny_bundle.folder: tiny_bundle, tmp_path: other}
    monkeypatch.setattr(
        "yolact_ros.evaluate.backend_comparison.Bundle", SimpleNamespace(open=bundles.get)
    )
    with pytest.raises(ConfigError, match="different classes"):
        compare_backends(
            {"a": tiny_bundle.folder, "b": tmp_path},
            [],
            frames=1,
            threads=(1,),
            postprocess=PostprocessConfig(),
        )


def test_the_command_compares_and_stores(tiny_bundle, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(images / "a.png"), np.zeros((96, 120, 3), np.uint8))
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "height": 96, "width": 120}],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "spoon"}],
        "annotations": [
            {
                **{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 100},
                **{"bbox": [0, 0, 10, 10], "segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]]},
            }
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    words = ["benchmark", str(tiny_bundle.folder), "--compare", "--images", str(images)]
    words += ["--annotations", str(tmp_path / "truth.json"), "--frames", "2", "--threads", "1"]
    assert main([*words, "--store", "--json", str(tmp_path / "out.json")]) == 0
    text = capsys.readouterr().out
    assert "`backend: auto` now uses" in text
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert rows[0]["config"]["backend"] == "onnxruntime" and rows[0]["mask_ap"] == 0.0
    stored = json.loads(choice.choice_file(tiny_bundle.description.identity).read_text())
    assert f"uses {stored['backend']} {stored['precision']} on this machine" in text


def test_the_table_has_a_row_for_each_backend():
    functions = runpy.run_path(str(REPOSITORY / "scripts" / "speed_table.py"))
    rows = [
        row(10, ap=0.5, config=BackendConfig("onnxruntime", threads=1)),
        row(6, ap=0.25, config=BackendConfig("onnxruntime", threads=2)),
        row(5, config=BackendConfig("openvino", precision="bf16", threads=1)),
    ]
    content = {"rows": [dataclasses.asdict(row) for row in rows]}
    assert functions["comparison_table"]([content]).splitlines()[2:] == [
        "| m | onnxruntime | cpu | f32 | 10.0, 1.00 | 6.0, 0.60 | 100.0 | 50.0 |",
        "| m | openvino | cpu | bf16 | 5.0, 0.50 | - | 100.0 | - |",
    ]
    assert functions["comparison_table"]([]) == ""


def test_each_release_has_one_row_with_the_medians(tmp_path, monkeypatch):
    def write_row(version, ms):
        rows = [
            row(ms, config=BackendConfig("onnxruntime", threads=1)),
            row(ms / 2, config=BackendConfig("onnxruntime", threads=2)),
            row(1, config=BackendConfig("openvino", threads=1)),
        ]
        rows = [{**dataclasses.asdict(one), "model": "models/tabletop"} for one in rows]
        scenes = {f"{n} instances": {"total": {"p50": n / 10}} for n in (0, 20, 100)}
        post = {"variant": "any", "scenes": scenes}
        for name, content in (("tabletop", {"rows": rows}), ("post", post)):
            content["machine"] = {"cpu": "Some CPU"}
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        files = [str(tmp_path / name) for name in ("tabletop.json", "post.json")]
        words = ["--write", str(page), "--release", version]
        monkeypatch.setattr("sys.argv", ["speed_table.py", *files, *words])
        runpy.run_path(str(REPOSITORY / "scripts" / "speed_table.py"), run_name="__main__")

    page = tmp_path / "page.md"
    marks = "<!-- releases: scripts/speed_table.py -->", "<!-- end of releases -->"
    page.write_text(f"before\n{marks[0]}\n{marks[1]}\nafter\n")
    for version, ms in (("0.1.0", 30), ("0.2.0", 20), ("0.2.0", 10)):
        write_row(version, ms)
    assert page.read_text().splitlines() == [
        "before",
        marks[0],
        "",
        "| version | tabletop | tools | everyday | 20 instances | 100 instances | CPU |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| 0.2.0 | 10.0, 5.0 | - | - | 2.00 | 10.00 | Some CPU |",
        "| 0.1.0 | 30.0, 15.0 | - | - | 2.00 | 10.00 | Some CPU |",
        "",
        marks[1],
        "after",
    ]


def test_flags_that_require_each_other_are_reported(tmp_path, capsys):
    assert main(["benchmark", "--store"]) == 1
    assert "require --compare" in capsys.readouterr().err
    assert main(["benchmark", "--compare", "--annotations", str(tmp_path / "a.json")]) == 1
    assert "--annotations requires --images" in capsys.readouterr().err
