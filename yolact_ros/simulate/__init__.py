"""Simulate table-top scenes with true instance masks."""
