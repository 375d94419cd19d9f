"""A model's name leads to the right file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import yolact_ros
from yolact_ros.config import SHIPPED_MODELS
from yolact_ros.errors import BundleError
from yolact_ros.runtime import shipped
from yolact_ros.runtime.shipped import find_model, shipped_file


@pytest.mark.parametrize("name", SHIPPED_MODELS)
def test_every_shipped_model_opens_by_its_name_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert yolact_ros.Segmenter.open(name).description.model.name == name


def test_a_bundle_in_the_current_folder_takes_precedence_over_a_shipped_name(
    tiny_bundle, tmp_path, monkeypatch
):
    tiny_bundle.folder.rename(tmp_path / "tools")
    monkeypatch.chdir(tmp_path)
    assert find_model("tools") == Path("tools")


def test_a_path_is_returned_without_a_check():
    assert find_model("no/such/bundle") == Path("no/such/bundle")
    assert find_model("missing.pth") == Path("missing.pth")


def test_an_unknown_name_lists_the_shipped_ones():
    with pytest.raises(BundleError, match="no model 'table_top'.*tabletop, tools, everyday"):
        find_model("table_top")


def test_an_installed_workspace_has_the_models_in_its_share_folder(
    tiny_bundle, tmp_path, monkeypatch
):
    share = tmp_path / "ws" / "share" / "yolact_ros" / "models"
    share.mkdir(parents=True)
    tiny_bundle.folder.rename(share / "tabletop")
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "lib" / "yolact_ros")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path / 'ws'}")
    assert find_model("tabletop") == share / "tabletop"


def test_a_missing_file_is_not_looked_for_in_parent_folders(tmp_path, monkeypatch):
    package = tmp_path / "a" / "b" / "yolact_ros"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "missing.txt").touch()
    monkeypatch.setattr(shipped, "PACKAGE", package)
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    with pytest.raises(BundleError, match="missing.txt is not part of"):
        shipped_file("models/missing.txt")


def test_importing_the_package_loads_neither_torch_nor_rclpy_nor_opencv():
    code = (
        "import sys, yolact_ros; assert yolact_ros.__version__; dir(yolact_ros)\n"
        "assert not {'torch', 'rclpy', 'cv2', 'numpy'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        yolact_ros.Segmentor  # noqa: B018
