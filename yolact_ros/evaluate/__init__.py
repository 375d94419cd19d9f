"""Measure accuracy and speed of a model through the same Segmenter that a robot runs."""
