"""Recover a checkpoint from the graphs of a bundle, for users who only have the bundle."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from yolact_ros.errors import BundleError
from yolact_ros.export.to_onnx import widen_weights
from yolact_ros.model.weights.checkpoint import initialise_weights, load_weights, save_checkpoint
from yolact_ros.model.yolact import Yolact
from yolact_ros.runtime.bundle import Bundle

# Index of the bias among a node's inputs; the weights come second.
BIASES = {"Conv": 2, "DeformConv": 3, "Gemm": 2}

# The only layers of a network that no graph has, because only training uses them.
TRAINING_ONLY = "semantic_head."


def recover_checkpoint(folder: str | Path, path: str | Path) -> None:
    """Write a checkpoint whose network computes what a bundle computes.

    The export folded batch norms into convolutions, so those of the checkpoint are neutral, and a
    training that starts from it must keep them frozen. Layers that only training uses start
    with initial values.

    Args:
        folder: a bundle in float32; weights that it stores as float16 stay rounded.
        path: the checkpoint to write.

    Raises:
        BundleError: the bundle has another precision, or its graphs lack layers.
        WeightsError: the checkpoint cannot be written.
    """
    bundle = Bundle.open(folder)
    if bundle.description.precision != "fp32":
        raise BundleError(
            f"The weights in {folder} are rounded to {bundle.description.precision}. Name the "
            "bundle or checkpoint that it was created from."
        )
    torch.manual_seed(0)  # makes the initial values reproducible
    model = Yolact(bundle.description.model).eval()
    initialise_weights(model)
    norms = _norms_after_convolutions(model)
    own: dict[str, Tensor] = model.state_dict()
    found: dict[str, Tensor] = {}
    for graph in bundle.graphs:
        for name, weight, bias in _layers(bundle.read_graph(graph)):
            while name not in own and "." in name:  # the graph's module contains the network
                name = name.partition(".")[2]
            if name not in own:
                continue
            if weight.dim() == 2 and own[name].dim() == 4:  # `PredictionHead.predict_cells`
                outputs, inputs, *kernel = own[name].shape
                weight = weight.reshape(outputs, *kernel, inputs).permute(0, 3, 1, 2)
            layer = name.removesuffix(".weight")
            found[name] = weight.contiguous()
            if layer not in norms:
                if f"{layer}.bias" in own or bool(bias.any()):
                    found[f"{layer}.bias"] = bias
                continue
            norm, epsilon = norms[layer]
            if f"{layer}.bias" in own:  # it was folded into that of the norm
                found[f"{layer}.bias"] = torch.zeros_like(bias)
            found |= {
                f"{norm}.weight": torch.full_like(bias, (1 + epsilon) ** 0.5),
                f"{norm}.bias": bias,
                f"{norm}.running_mean": torch.zeros_like(bias),
                f"{norm}.running_var": torch.ones_like(bias),
                f"{norm}.num_batches_tracked": torch.zeros((), dtype=torch.int64),
            }
    missing = [name for name in own if name not in found and not name.startswith(TRAINING_ONLY)]
    if missing:
        shown = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        raise BundleError(
            f"The graphs of {folder} lack {len(missing)} entries of the network ({shown}). Name "
            "the checkpoint that it was created from."
        )
    load_weights(model, {**own, **found}, source=str(folder))
    save_checkpoint(path, model, extra={"bundle": bundle.description.identity})


def _layers(content: bytes) -> list[tuple[str, Tensor, Tensor]]:
    """Return the weights' name, the weights and the bias of every layer of a graph."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(widen_weights(content)).graph
    values = {tensor.name: tensor for tensor in graph.initializer}

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(numpy_helper.to_array(values[name]).copy())

    layers = {}
    for node in graph.node:
        inputs = [*node.input, "", ""]
        if node.op_type not in BIASES or inputs[1] not in values:
            continue
        name, bias, weight = inputs[1], inputs[BIASES[node.op_type]], tensor(inputs[1])
        if node.op_type == "Gemm":  # its weights have lost their name, its bias has not
            name = f"{bias.removesuffix('.bias')}.weight"
        # The exporter leaves out a bias of zeros.
        layers[name] = (
            name,
            weight,
            tensor(bias) if bias in values else weight.new_zeros(len(weight)),
        )
    return list(layers.values())


@torch.no_grad()
def _norms_after_convolutions(model: Yolact) -> dict[str, tuple[str, float]]:
    """Map each convolution to name and epsilon of the batch norm that follows it."""
    outputs: dict[int, tuple[str, Tensor]] = {}  # an id is valid as long as its tensor
    norms: dict[str, tuple[str, float]] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.BatchNorm2d):
            norms[outputs[id(inputs[0])][0]] = name, module.eps
        elif isinstance(output, Tensor):
            outputs[id(output)] = name, output

    handles = [
        module.register_forward_hook(
            lambda module, inputs, output, name=name: note(name, module, inputs, output)
        )
        for name, module in model.named_modules()
        if not list(module.children()) or hasattr(module, "weight")
    ]
    model(torch.zeros(1, 3, *model.config.input_size))
    for handle in handles:
        handle.remove()
    return norms
