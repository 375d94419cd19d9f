"""`yolact convert` turns an official file on disk into a network that runs."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.errors import WeightsError  # noqa: E402
from yolact_ros.model.weights.checkpoint import load_checkpoint, load_model, read_entries  # noqa: E402
from yolact_ros.model.weights.official import identify  # noqa: E402
from yolact_ros.variants import variant  # noqa: E402

MOBILENET = "yolact_edge_mobilenetv2"


@pytest.fixture(scope="module")
def official(parity, tmp_path_factory) -> Path:
    """Write YolactEdge on MobileNetV2, the smallest official network, in the format of 2019."""
    path = tmp_path_factory.mktemp("official") / "edge.pth"
    torch.save(parity(MOBILENET).entries, path, _use_new_zipfile_serialization=False)
    return path


def test_a_converted_file_is_the_authors_network(official, parity, tmp_path, capsys):
    output = tmp_path / "new" / "out.pth"
    assert main(["convert", str(official), "-o", str(output)]) == 0
    model = load_model(output)
    expected = parity(MOBILENET).network
    assert model.config == variant("yolact_edge_mobilenetv2")
    weights = model.state_dict()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=0)
    printed = capsys.readouterr().out
    assert "yolact_edge_mobilenetv2: 550 x 550 pixels, 80 classes" in printed
    assert "converted      324 entries" in printed
    assert "left out        24 entries" in printed and "which nothing uses" in printed
    assert f"{sum(p.numel() for p in model.parameters()):,d}" in printed
    origin = load_checkpoint(output).extra["official"]
    assert origin["file"] == "edge.pth" and len(origin["sha256"]) == 64


def test_several_networks_with_the_same_entries_require_the_variant(state_dicts, tmp_path, capsys):
    path = tmp_path / "x.pth"
    zero = torch.zeros(())  # all entries share it, so the file is small
    torch.save({n: zero.expand(t.shape) for n, t in state_dicts["yolact_im400"].items()}, path)
    assert main(["convert", str(path), "-o", str(tmp_path / "out.pth")]) == 1
    error = capsys.readouterr().err
    assert "yolact_base (550 x 550 pixels)" in error
    assert "yolact_im400 (400 x 400 pixels)" in error
    assert "yolact_im700 (700 x 700 pixels)" in error
    assert "--variant NAME" in error


def test_the_authors_file_name_decides_between_networks_of_equal_entries(state_dicts):
    zero = torch.zeros(())
    entries = {n: zero.expand(t.shape) for n, t in state_dicts["yolact_im400"].items()}
    for name in ("yolact_base", "yolact_im400", "yolact_im700"):
        config, _ = identify(entries, source=Path(f"weights/{name}_54_800000.pth"))
        assert config == variant(name)


def test_the_same_network_under_two_names_is_not_ambiguous(state_dicts):
    config, same = identify(state_dicts["yolact_edge_vid"], source=Path("x.pth"))
    assert config == variant("yolact_edge_vid")
    assert same == ["yolact_edge_vid_trainflow"]


def test_a_wrong_variant_lists_what_does_not_fit(official, tmp_path, capsys):
    words = ["convert", str(official), "--variant", "yolact_edge", "-o", str(tmp_path / "o.pth")]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "is not yolact_edge; it has" in error and "unknown: backbone.layers.0.0" in error
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_a_fault_is_refused_with_the_fault(official, tmp_path, capsys):
    entries = read_entries(official)
    del entries["proto_net.0.bias"]
    broken = tmp_path / "broken.pth"
    torch.save(entries, broken)
    assert main(["convert", str(broken), "-o", str(tmp_path / "out.pth")]) == 1
    error = capsys.readouterr().err
    assert "nearest is yolact_edge_mobilenetv2" in error
    assert "missing: protonet.layers.0.bias" in error and "--classes" in error


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is truncated"),
        (b"no checkpoint", "UnpicklingError"),
        (b"PK\x03\x04 half a zip", "it is truncated"),
        (b"<!DOCTYPE html><title>Google Drive - Virus scan warning", "it is a web page"),
    ],
)
def test_a_file_that_is_not_a_checkpoint_is_reported(content, reason, tmp_path, capsys):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    assert main(["convert", str(path), "-o", str(tmp_path / "out.pth")]) == 1
    error = capsys.readouterr().err
    assert "is not a checkpoint that can be read safely" in error and reason in error


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("kept", [0.2, 0.999])
def test_a_truncated_file_is_reported(legacy, kept, tmp_path):
    path = tmp_path / "x.pth"
    entries = {"a": torch.zeros(30_000), "b": torch.zeros(500)}
    torch.save(entries, path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(WeightsError, match="it is truncated"):
        load_checkpoint(path)


def test_an_official_file_is_accepted_unchanged(official, parity):
    model = load_model(official)
    for name, tensor in parity(MOBILENET).network.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("trap was run"),)


def test_code_in_a_file_is_not_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps({"a": Trap()}))
    assert main(["convert", str(path), "-o", str(tmp_path / "out.pth")]) == 1
    assert "read safely" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["x.pth"]


def test_a_checkpoint_of_this_package_needs_no_conversion(official, tmp_path, capsys):
    ours = tmp_path / "ours.pth"
    assert main(["convert", str(official), "-o", str(ours)]) == 0
    assert main(["convert", str(ours), "-o", str(tmp_path / "again.pth")]) == 1
    assert "needs no conversion" in capsys.readouterr().err


def test_an_unknown_variant_is_reported(official, tmp_path, capsys):
    words = ["--variant", "yolact_giant", "-o", str(tmp_path / "out.pth")]
    assert main(["convert", str(official), *words]) == 1
    assert "Unknown variant" in capsys.readouterr().err


@pytest.mark.parametrize("names", ["a,,b", "a,b,a", ""])
def test_names_of_classes_are_distinct(names, official, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(official), "--classes", names, "-o", str(tmp_path / "out.pth")])
    assert ended.value.code == 2
    assert "expected distinct names" in capsys.readouterr().err
