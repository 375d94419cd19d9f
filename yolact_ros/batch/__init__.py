"""Segment many bags, videos and pictures with the workers of a Ray cluster."""
