"""Simulate tabletop scenes with true instance masks."""
