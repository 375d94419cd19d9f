"""Run a checkpoint in PyTorch, for development, evaluation and comparison, not for robots."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yolact_ros.config import ModelConfig
from yolact_ros.errors import BackendError
from yolact_ros.files import WEB_PAGE, is_web_page


class TorchBackend:
    """Runs the image and video graphs of a checkpoint, with NMS on the host.

    Attributes:
        model: the checkpoint's configuration.
        identity: SHA-256 of the checkpoint file; empty for an in-memory network.
        on_gpu: whether the network runs on a GPU.
    """

    def __init__(self, path: str | Path | Any, *, threads: int = 0, device: str = "cpu") -> None:
        """Load the checkpoint.

        Args:
            path: a checkpoint of `yolact train` or `yolact convert`; or an in-memory network in
                evaluation mode, whose current state is used at each run.
            threads: threads per operator; 0 leaves the choice to PyTorch.
            device: a PyTorch device, e.g. `cuda:0`.

        Raises:
            BackendError: PyTorch is not installed.
            WeightsError: the file is not a checkpoint, or does not fit its network.
        """
        try:
            import torch

            from yolact_ros.model.graphs.detect import (
                BoxesAndCoefficientsGraph,
                DetectGraph,
                PrototypeGraph,
                RescoreGraph,
            )
            from yolact_ros.model.graphs.keyframes import (
                KeyframeGraph,
                NonKeyframeFlowGraph,
                NonKeyframeGraph,
            )
            from yolact_ros.model.weights.checkpoint import load_model
        except ImportError as error:
            if is_web_page(path):
                raise BackendError(f"{path} is not a checkpoint: it is {WEB_PAGE}.") from error
            name = Path(path).name
            raise BackendError(
                f"{path} is not a bundle; running a checkpoint requires {error.name}, which is "
                f"not installed here. On a PC with 'yolact_ros[export]': yolact export {name} -o "
                f"{Path(name).stem}; copy that folder here, and name it as the model."
            ) from error
        if threads:
            torch.set_num_threads(threads)
        self._torch = torch
        self._device = torch.device(device)
        self.on_gpu = self._device.type != "cpu"
        in_memory = isinstance(path, torch.nn.Module)
        network: Any = path if in_memory else load_model(path)
        network.to(self._device)
        self.model: ModelConfig = network.config
        self.identity = "" if in_memory else hashlib.sha256(Path(path).read_bytes()).hexdigest()
        detect = DetectGraph(network)
        self._graphs: dict[str, Any] = {
            "detect": detect,
            "boxes_and_coefficients": BoxesAndCoefficientsGraph(network).to(self._device),
            "prototypes": PrototypeGraph(network.protonet),
            "keyframe": KeyframeGraph(detect),
            "non_keyframe_flow": NonKeyframeFlowGraph(detect),
        }
        if network.feature_transform is not None:
            self._graphs["non_keyframe"] = NonKeyframeGraph(detect)
        if network.mask_rescoring is not None:
            self._graphs["rescore"] = RescoreGraph(network.mask_rescoring)

    def run(
        self, graph: str, inputs: Mapping[str, Any], *, keep: Collection[str] = ()
    ) -> dict[str, Any]:
        """Run one graph; outputs named in `keep` remain tensors on the device."""
        if graph not in self._graphs:
            raise BackendError(
                f"This checkpoint lacks the graph {graph!r}; it has: {', '.join(self._graphs)}."
            )
        torch = self._torch
        tensors = {
            # A copy: torch shares the memory of an array, and warns if that is read-only.
            name: torch.tensor(x, device=self._device) if isinstance(x, np.ndarray) else x
            for name, x in inputs.items()
        }
        with torch.inference_mode():
            results = self._graphs[graph](**tensors)
            if isinstance(results, torch.Tensor):
                results = (results,)
        names = self._graphs[graph].outputs
        return {
            name: tensor if name in keep else tensor.cpu().numpy()
            for name, tensor in zip(names, results, strict=True)
        }

    def close(self) -> None:
        """Free the network."""
        self._graphs.clear()
