"""How good and how fast a model is, measured through the same Segmenter that a robot runs."""
