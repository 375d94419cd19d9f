"""Provide all that a robot needs: bundles, preprocessing, post-processing, masks; no torch."""
