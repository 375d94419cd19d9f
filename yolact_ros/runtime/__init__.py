"""Provide all that a robot needs without torch: bundles, preprocessing, post-processing, masks."""
