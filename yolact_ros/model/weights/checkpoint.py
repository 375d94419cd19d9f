"""Read and write checkpoints with their configuration, and initialise new networks."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolact_ros.config import ModelConfig, model_from_mapping, to_mapping
from yolact_ros.errors import WeightsError
from yolact_ros.files import WEB_PAGE, is_web_page, replace_file
from yolact_ros.model.backbones.efficientnet import EfficientNetLite0
from yolact_ros.model.backbones.resnet import ResNet
from yolact_ros.model.deform_conv import DeformConv2d
from yolact_ros.model.weights.imagenet import (
    is_deformable_part,
    lite0_file,
    rename_lite0,
    rename_resnet,
    torchvision_resnet,
)
from yolact_ros.model.weights.official import Conversion, convert_whole, identify, official_entries
from yolact_ros.model.weights.official_names import depends_on_classes
from yolact_ros.model.yolact import Yolact

MAX_STEP = 10**12
CHECKPOINT_FORMAT = "yolact_ros.checkpoint/1"

# The layer of mask re-scoring that has one output per class.
RESCORED_CLASSES = "mask_rescoring.layers.10."


@dataclass(frozen=True)
class Checkpoint:
    """Holds weights with everything needed to use them or to continue their training.

    Attributes:
        config: configuration of the network.
        weights: tensors by entry name, as in `Yolact.state_dict`.
        step: number of optimisation steps done.
        optimizer: state of the optimizer; None after the end of the training.
        extra: further state of the trainer (plain values and tensors).
    """

    config: ModelConfig
    weights: Mapping[str, Tensor]
    step: int = 0
    optimizer: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(
    path: str | Path,
    model: Yolact,
    *,
    step: int = 0,
    optimizer: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint atomically: `path` holds either the old file or the new one.

    Raises:
        WeightsError: it cannot be written.
    """
    path = Path(path)
    content = {
        "format": CHECKPOINT_FORMAT,
        "config": to_mapping(model.config),
        "weights": model.state_dict(),
        "step": step,
        "optimizer": None if optimizer is None else dict(optimizer),
        "extra": dict(extra or {}),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda file: torch.save(content, file))
    # torch raises RuntimeError when the disk is full.
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"The checkpoint {path} cannot be written: {error}. Free some space, or name another "
            "folder."
        ) from error


def read_entries(path: str | Path) -> dict[str, Any]:
    """Read a file written by `torch.save`, without executing code from it.

    Raises:
        WeightsError: the file is missing, or does not consist of tensors and plain values.
    """
    path = Path(path)
    try:
        usable = path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        usable = False
    if not usable:
        raise WeightsError(f"There is no checkpoint {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a foreign or broken file
        raise WeightsError(
            f"{path} is not a checkpoint that can be read safely: {_what_it_is(path, error)}; "
            "expected a file written by `yolact train`, or tensors saved by torch.save."
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} contains a {type(content).__name__}; expected a checkpoint written by "
            "`yolact train`."
        )
    return content


def _what_it_is(path: Path, error: Exception) -> str:
    if is_web_page(path):
        return f"it is {WEB_PAGE}"
    with path.open("rb") as file:
        start = file.read(2)
    # Newer files are ZIP archives, whose index comes last; older ones are several pickles.
    cut_zip = start == b"PK" and not zipfile.is_zipfile(path)
    if cut_zip or isinstance(error, EOFError) or "EOF" in str(error):
        return "it is truncated, e.g. by an interrupted download; fetch it again"
    return type(error).__name__


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of this package, or an official one as the authors publish it.

    Raises:
        WeightsError: the file is missing, unreadable or from another program.
        ConfigError: its configuration cannot be used, or several networks fit its entries.
    """
    content = read_entries(path)
    if content and all(isinstance(value, Tensor) for value in content.values()):
        entries = official_entries(content, source=str(path))
        config, _ = identify(entries, source=Path(path))
        conversion = convert_whole(entries, config, source=str(path))
        return Checkpoint(config, {**conversion.weights, **conversion.counters})
    if content.get("format") != CHECKPOINT_FORMAT:
        raise WeightsError(
            f"{path} is not a checkpoint of yolact_ros (format {content.get('format')!r}); "
            f"expected {CHECKPOINT_FORMAT!r}, as written by `yolact train`."
        )
    missing = {"config", "weights", "step", "optimizer", "extra"} - set(content)
    if missing:
        raise WeightsError(
            f"{path} is incomplete: it lacks {', '.join(sorted(missing))}. Use another copy."
        )
    optimizer, extra, step = content["optimizer"], content["extra"], content["step"]
    if not isinstance(content["config"], dict):
        raise WeightsError(f"{path}: the configuration of the network is not a mapping.")
    if not isinstance(optimizer, (dict, type(None))) or not isinstance(extra, dict):
        raise WeightsError(f"{path}: the training state is not a mapping; use another copy.")
    if type(step) is not int or not 0 <= step <= MAX_STEP:
        raise WeightsError(f"{path}: step is {step!r}; expected a non-negative integer.")
    return Checkpoint(
        config=model_from_mapping(content["config"]),
        weights=check_tensors(content["weights"], source=str(path)),
        step=step,
        optimizer=optimizer,
        extra=extra,
    )


def check_tensors(weights: Any, *, source: str) -> dict[str, Tensor]:
    """Check that a value holds tensors of finite numbers by name.

    Raises:
        WeightsError: it does not; the message names the first wrong entry.
    """
    if not isinstance(weights, Mapping):
        raise WeightsError(f"{source}: the weights are not a mapping; expected tensors by name.")
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise WeightsError(f"{source}: the entry {name!r} of its weights is not a tensor.")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise WeightsError(f"{source}: {name} is not a dense CPU tensor ({tensor.layout}).")
        if tensor.is_complex() or not bool(torch.isfinite(tensor).all()):
            raise WeightsError(
                f"{source}: {name} has NaN, infinity or complex numbers; the training diverged "
                "or the file is damaged. Use an earlier checkpoint."
            )
    return dict(weights)


def load_model(path: str | Path) -> Yolact:
    """Build the network of a checkpoint with its weights, in evaluation mode.

    Raises:
        WeightsError: see `load_checkpoint`, or the entries do not fit the network.
    """
    checkpoint = load_checkpoint(path)
    model = Yolact(checkpoint.config)
    load_weights(model, checkpoint.weights, source=str(path))
    return model.eval()


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Fill every entry of `model` from `weights`.

    Raises:
        WeightsError: an entry is missing, unexpected or has another shape; all are listed.
    """
    expected = model.state_dict()
    problems = [f"missing: {name}" for name in expected if name not in weights]
    problems += [f"unexpected: {name}" for name in weights if name not in expected]
    problems += [
        f"shape of {name}: {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if problems:
        shown = "\n  ".join(problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise WeightsError(
            f"The weights of {source} do not fit the network ({len(problems)} entries):\n  "
            f"{shown}{more}"
        )
    model.load_state_dict(dict(weights))


@dataclass(frozen=True)
class Transfer:
    """Lists what became of the entries of a checkpoint that initialised another network.

    Attributes:
        source: the checkpoint.
        taken: entries that were copied.
        averaged: entries in which every class is the mean of the checkpoint's classes.
        fresh: entries of the network that the checkpoint lacks, or has in another shape or for
            other classes.
        unused: entries of the checkpoint that do not fit the network, for the same reasons.
    """

    source: str
    taken: tuple[str, ...]
    averaged: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"Copied {len(self.taken)} of "
            f"{len(self.taken) + len(self.averaged) + len(self.fresh)} entries from "
            f"{self.source}; {len(self.averaged)} are the mean of its classes, {len(self.fresh)} "
            f"are newly initialised, and {len(self.unused)} entries of the file are not used."
        )

    def report(self) -> str:
        """Return the full account, one line per entry."""
        lines = [str(self)]
        for title, names in (
            ("copied", self.taken),
            ("mean of the classes", self.averaged),
            ("initialised", self.fresh),
            ("not used", self.unused),
        ):
            lines += ["", f"{title} ({len(names)}):", *(f"  {name}" for name in names)]
        return "\n".join(lines) + "\n"


def load_partial_weights(model: Yolact, path: str | Path) -> Transfer:
    """Initialise a network from a checkpoint with other classes or other parts.

    Entries with equal name and shape are copied, except that entries whose values belong to
    classes keep their initial values if the classes differ. Mask re-scoring is an exception: how
    well a mask fits hardly depends on the class, so each new class starts as the mean of the old
    ones.
    A random last layer after trained ones would leave many classes dead, because a ReLU follows.

    Raises:
        WeightsError: the checkpoint cannot be read, or it has another backbone.
    """
    checkpoint = load_checkpoint(path)
    theirs, ours = checkpoint.config.backbone.name, model.config.backbone.name
    if theirs != ours:
        raise WeightsError(
            f"{path} has the backbone {theirs!r}, but {model.config.name!r} has {ours!r}; start "
            f"from a checkpoint with {ours!r}."
        )
    weights, own = checkpoint.weights, model.state_dict()
    same_classes = checkpoint.config.classes == model.config.classes
    taken = {
        name: tensor
        for name, tensor in weights.items()
        if name in own
        and own[name].shape == tensor.shape
        and (same_classes or not depends_on_classes(name))
    }
    averaged = {
        name: weights[name].mean(dim=0, keepdim=True).expand_as(own[name])
        for name in own
        if name.startswith(RESCORED_CLASSES)
        and name in weights
        and name not in taken
        and weights[name].shape[1:] == own[name].shape[1:]
    }
    model.load_state_dict({**own, **taken, **averaged})
    return Transfer(
        source=str(path),
        taken=tuple(taken),
        averaged=tuple(averaged),
        fresh=tuple(name for name in own if name not in taken and name not in averaged),
        unused=tuple(name for name in weights if name not in taken and name not in averaged),
    )


def load_official_weights(
    model: Yolact, entries: Mapping[str, Tensor], *, source: str = "the official checkpoint"
) -> Conversion:
    """Fill a network from the entries of an official state dict.

    Args:
        model: the network.
        entries: tensors by official name.
        source: name of the file in error messages.

    Returns:
        A list of every entry.

    Raises:
        WeightsError: an entry is unknown, missing or of another shape.
    """
    conversion = convert_whole(entries, model.config, source=source)
    load_weights(model, {**conversion.weights, **conversion.counters}, source=source)
    return conversion


def initialise_weights(model: Yolact) -> None:
    """Initialise everything but the backbone (reference: `init_weights`).

    Weights are Xavier-uniform and biases zero. Deformable convolutions keep their own
    initialisation, in which no tap is shifted. A feature transform starts as the identity.
    """
    moving = [m.offset_mask for m in model.modules() if isinstance(m, DeformConv2d)]
    for name, module in model.named_modules():
        if module in moving or name.startswith("backbone."):
            continue
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if model.feature_transform is not None:
        model.feature_transform.start_as_identity()


def load_imagenet_backbone(model: Yolact) -> None:
    """Fill the backbone with ImageNet weights.

    Those of EfficientNet-Lite0 come with the extra `train`, those of the ResNets with torchvision.
    Deformable convolutions load only their kernel; offsets and masks keep their initial values,
    as in the reference.

    Raises:
        WeightsError: the weights are not installed, or none are known for this backbone.
    """
    backbone = model.backbone
    if isinstance(backbone, EfficientNetLite0):
        entries = rename_lite0(read_entries(lite0_file()))
    elif isinstance(backbone, ResNet):
        fresh = {n: t for n, t in backbone.state_dict().items() if is_deformable_part(n)}
        entries = {**fresh, **rename_resnet(torchvision_resnet(model.config.backbone.name))}
    else:
        raise WeightsError(
            f"No ImageNet weights are known for backbone {model.config.backbone.name!r}; "
            "start from a checkpoint, or train from scratch with `pretrained: false`."
        )
    load_weights(backbone, entries, source=f"the ImageNet weights of {model.config.backbone.name}")
