"""Backends run named graphs on tensors; they know nothing of YOLACT."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

# numpy.ndarray, or an opaque handle for an output that was kept on the device.
Array = Any


class Backend(Protocol):
    """The replaceable part of the pipeline."""

    @property
    def on_gpu(self) -> bool:
        """Whether graphs run on a GPU, so that the CPU is free meanwhile."""
        ...

    def run(
        self, graph: str, inputs: Mapping[str, Array], *, keep: Collection[str] = ()
    ) -> dict[str, Array]:
        """Run one named graph.

        Args:
            graph: its name, e.g. `detect`.
            inputs: by name, numpy arrays or handles of an earlier run.
            keep: names of outputs that stay on the device as opaque handles for a later run.

        Returns:
            Outputs by name.

        Raises:
            BackendError: there is no such graph, its inputs do not fit, or the library fails.
        """

    def close(self) -> None:
        """Free what the backend holds; it cannot be used afterwards."""


class Run(Protocol):
    """A run that was submitted to a device.

    Attributes:
        seconds: that it took, once it was fetched.
    """

    @property
    def seconds(self) -> float: ...  # noqa: D102 - above

    def fetch(self) -> dict[str, Array]:
        """Wait for the run and return its outputs by name, each time the same.

        Raises:
            BackendError: the run failed.
        """
        ...


@runtime_checkable
class AsyncBackend(Backend, Protocol):
    """A backend whose device computes while the calling thread does something else."""

    def submit(
        self, graph: str, inputs: Mapping[str, Array], *, keep: Collection[str] = ()
    ) -> Run:
        """Begin to run one named graph, as `run` does; return without waiting for it.

        Inputs are copied. A run that is not fetched yet is waited for; its outputs stay valid.
        """
        ...
