"""Physics scenes of a table top, with true instance masks."""
