"""Measure the accuracy and speed of a model with the same Segmenter that a robot runs."""
