"""Segment many bags, videos and images with the workers of a Ray cluster."""
