"""Simulation of table-top scenes with true instance masks."""
