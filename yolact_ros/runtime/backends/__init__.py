"""Define the interface of backends, which run named graphs and know nothing of YOLACT."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from yolact_ros.errors import BackendError

# numpy.ndarray, or an opaque handle for an output that was kept on the device.
Array = Any


class Backend(Protocol):
    """Runs named graphs; the replaceable part of the pipeline."""

    @property
    def on_gpu(self) -> bool:
        """Return whether graphs run on a GPU, which leaves the CPU free meanwhile."""
        ...

    def run(
        self, graph: str, inputs: Mapping[str, Array], *, keep: Collection[str] = ()
    ) -> dict[str, Array]:
        """Run one named graph.

        Args:
            graph: name of the graph, e.g. `detect`.
            inputs: numpy arrays or handles of an earlier run, by name.
            keep: names of outputs that stay on the device as opaque handles for a later run. In a
                batch, they are lists with one handle per image, as inputs as well; or arrays, if
                the library cannot split its tensors.

        Returns:
            Outputs by name.

        Raises:
            BackendError: the graph does not exist, its inputs do not fit, or the library fails.
        """

    def close(self) -> None:
        """Free all resources; the backend cannot be used afterwards."""


class Run(Protocol):
    """Represents a run that was submitted to a device.

    Attributes:
        seconds: duration of the run, once it has been fetched.
    """

    @property
    def seconds(self) -> float: ...  # noqa: D102 - above

    def fetch(self) -> dict[str, Array]:
        """Wait for the run and return its outputs by name; later calls return the same.

        Raises:
            BackendError: the run failed.
        """
        ...


class PendingRun:
    """Implements `Run` with a function that waits for the outputs.

    The function is called once; then `fetch` returns its outputs, or raises its error, every time.
    """

    def __init__(self, complete: Callable[[], tuple[dict[str, Array], float]]) -> None:
        """Create a run.

        Args:
            complete: returns the outputs, and the duration in seconds.
        """
        self.seconds = 0.0
        self._complete: Callable[[], tuple[dict[str, Array], float]] | None = complete
        self._outputs: dict[str, Array] = {}
        self._error: Exception | None = None

    def wait(self) -> None:
        """Wait for the outputs; errors are raised by `fetch`."""
        if self._complete is None:
            return
        try:
            self._outputs, self.seconds = self._complete()
        except Exception as error:  # noqa: BLE001 - raised by `fetch`
            self._error = error
        self._complete = None

    def fetch(self) -> dict[str, Array]:
        """Wait for the run; see `Run.fetch`."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._outputs


@runtime_checkable
class AsyncBackend(Backend, Protocol):
    """Runs graphs on a device while the calling thread does something else."""

    def submit(
        self, graph: str, inputs: Mapping[str, Array], *, keep: Collection[str] = ()
    ) -> Run:
        """Start running one named graph, like `run`, but without waiting for it.

        Inputs are copied. This may wait for an earlier run that has not been fetched, at least for
        one of the same graph; its outputs stay valid.
        """
        ...


def import_library(name: str, label: str) -> Any:
    """Import an inference library, which is an extra of this package.

    Raises:
        BackendError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        install = f"pip install 'yolact_ros[{name}]'"
        raise BackendError(
            f"{label} is not installed; install it with: {install} ({error})"
        ) from error


def shapes_match(first: Sequence[int], second: Sequence[int]) -> bool:
    """Return whether two shapes are equal; -1 in one of them matches any number."""
    return len(first) == len(second) and all(
        -1 in pair or pair[0] == pair[1] for pair in zip(first, second, strict=True)
    )


def output_of_shape(outputs: Mapping[str, Array], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return an output of a run as an array.

    Raises:
        BackendError: its shape is not `shape`, in which -1 stands for any number.
    """
    array = np.asarray(outputs[name])
    if not shapes_match(array.shape, shape):
        expected = tuple("any" if size == -1 else size for size in shape)
        raise BackendError(
            f"The model returned {name} of shape {array.shape}; expected {expected}. Export the "
            "model again."
        )
    return array
