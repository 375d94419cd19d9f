"""Export graphs that several tests compile or read."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def graph_of():
    """Return a function that exports a variant's graph as float32 ONNX (`small_graphs.GRAPHS`)."""
    from small_graphs import graph_exporter

    return graph_exporter()
