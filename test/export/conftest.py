"""Exported graphs that several tests compile or read."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def graph_of():
    """The float32 ONNX model of a variant's graph (`small_graphs.GRAPHS`)."""
    from small_graphs import graph_exporter

    return graph_exporter()
