"""Run a bundle in ONNX Runtime, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from yolact_ros.errors import BackendError
from yolact_ros.runtime.bundle import Bundle


class OnnxRuntimeBackend:
    """One session for each graph, made when the graph is first run."""

    def __init__(self, bundle: Bundle, *, threads: int = 0) -> None:
        """Load ONNX Runtime and the graph `detect`.

        Args:
            bundle: the model.
            threads: of one operator; 0 takes one for each processor core that may be used.

        Raises:
            BackendError: ONNX Runtime is not installed, or refuses the graph.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(
                "Running a bundle needs ONNX Runtime; install it with: "
                "pip install 'yolact_ros[onnxruntime]'"
            ) from error
        self._library = onnxruntime
        self._bundle = bundle
        self._threads = threads or len(os.sched_getaffinity(0))
        self._sessions: dict[str, Any] = {}
        self._session("detect")

    def run(
        self, graph: str, inputs: Mapping[str, Any], *, keep: Collection[str] = ()
    ) -> dict[str, Any]:
        """Run one graph. On the CPU kept outputs are plain arrays."""
        session = self._session(graph)
        expected = {value.name for value in session.get_inputs()}
        if set(inputs) != expected:
            raise BackendError(
                f"Graph {graph!r} takes {sorted(expected)}; it was given {sorted(inputs)}."
            )
        names = [value.name for value in session.get_outputs()]
        feed = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        try:
            return dict(zip(names, session.run(names, feed), strict=True))
        except Exception as error:  # onnxruntime's own exceptions share no public base
            raise BackendError(f"ONNX Runtime failed in graph {graph!r}: {error}") from error

    def close(self) -> None:
        """Free the sessions."""
        self._sessions.clear()

    def _session(self, graph: str) -> Any:
        if graph in self._sessions:
            return self._sessions[graph]
        path = self._bundle.graphs.get(graph)
        if path is None:
            raise BackendError(
                f"{self._bundle.folder} has no graph {graph!r}; it has: "
                f"{', '.join(self._bundle.graphs)}."
            )
        options = self._library.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # Waiting threads would burn the cores that cameras and planners need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            session = self._library.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise BackendError(f"ONNX Runtime refuses {path}: {error}") from error
        self._sessions[graph] = session
        return session
