"""A run that starts from another network's checkpoint copies what fits and reports the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from yolact_ros.config import BackboneConfig  # noqa: E402
from yolact_ros.errors import WeightsError  # noqa: E402
from yolact_ros.model.weights.checkpoint import load_partial_weights, save_checkpoint  # noqa: E402
from yolact_ros.model.yolact import Yolact  # noqa: E402
from yolact_ros.variants import TABLETOP_MODEL  # noqa: E402

SOURCE = replace(
    TABLETOP_MODEL, classes=("cup", "fork", "spoon"), input_size=(96, 96), channels=8,
    num_prototypes=4, mask_rescoring=False,
)  # fmt: skip
CLASS_ENTRIES = {
    "head.class_logits.weight", "head.class_logits.bias",
    "semantic_head.weight", "semantic_head.bias",
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("source") / "source.pth"
    save_checkpoint(path, Yolact(SOURCE))
    return path


def filled(config, checkpoint):
    """Return a network started from the checkpoint, its earlier values, and the account."""
    torch.manual_seed(2)
    model = Yolact(config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return model.state_dict(), before, load_partial_weights(model, checkpoint)


@pytest.mark.parametrize("classes", [("bolt", "nut"), ("bolt", "nut", "screw")])
def test_only_weights_that_depend_on_the_classes_start_fresh(classes, checkpoint):
    after, before, transfer = filled(replace(SOURCE, classes=classes), checkpoint)
    source = torch.load(checkpoint, weights_only=True)["weights"]
    assert set(transfer.fresh) == set(transfer.unused) == CLASS_ENTRIES
    assert set(transfer.taken) == set(source) - CLASS_ENTRIES
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name] if name in CLASS_ENTRIES else source[name]), name


def test_the_same_network_loads_every_weight(checkpoint):
    after, _, transfer = filled(SOURCE, checkpoint)
    source = torch.load(checkpoint, weights_only=True)["weights"]
    assert not transfer.fresh and not transfer.unused
    assert all(torch.equal(tensor, source[name]) for name, tensor in after.items())


def test_another_width_loads_only_the_backbone(checkpoint):
    after, before, transfer = filled(replace(SOURCE, channels=16), checkpoint)
    assert any(name.startswith("backbone.") for name in transfer.taken)
    assert "fpn.predict_layers.0.weight" in transfer.fresh
    name = "fpn.predict_layers.0.weight"
    assert torch.equal(after[name], before[name])


def test_the_report_names_every_entry(checkpoint):
    *_, transfer = filled(replace(SOURCE, classes=("bolt",)), checkpoint)
    assert f"{len(transfer.taken)} of {len(transfer.taken) + 4} entries" in str(transfer)
    report = transfer.report()
    for name in (*transfer.taken, *transfer.fresh):
        assert f"  {name}\n" in report


def test_another_backbone_is_refused(checkpoint):
    other = replace(SOURCE, backbone=BackboneConfig("mobilenet_v2"))
    with pytest.raises(WeightsError, match="start from a checkpoint with 'mobilenet_v2'"):
        load_partial_weights(Yolact(other), checkpoint)


def test_the_error_for_an_unknown_network_says_how_to_name_its_classes(tmp_path):
    torch.save({"backbone.conv1.weight": torch.zeros(3)}, tmp_path / "yolact_base.pth")
    with pytest.raises(WeightsError, match="yolact convert .*yolact_base.pth --classes"):
        load_partial_weights(Yolact(SOURCE), tmp_path / "yolact_base.pth")


def test_mask_rescoring_of_new_classes_starts_as_the_mean_of_the_old_ones(tmp_path):
    source = replace(SOURCE, input_size=(256, 256), mask_rescoring=True)
    torch.manual_seed(1)
    trained = Yolact(source).eval()
    path = tmp_path / "source.pth"
    save_checkpoint(path, trained)
    model = Yolact(replace(source, classes=("bolt", "nut", "screw", "nail"))).eval()
    transfer = load_partial_weights(model, path)
    assert set(transfer.averaged) == {f"mask_rescoring.layers.10.{n}" for n in ("weight", "bias")}
    assert not {"mask_rescoring.layers.10.weight"} & {*transfer.fresh, *transfer.unused}
    last, before = (m.mask_rescoring.layers["10"] for m in (model, trained))
    with torch.no_grad():
        features = torch.rand(2, 128, 1, 1)
        expected = before(features).mean(dim=1, keepdim=True).expand(-1, 4, -1, -1)
        torch.testing.assert_close(last(features), expected)
    assert "2 are the mean" in str(transfer)
