"""Soak-test the node with random images, restarts and requests for minutes or hours."""
