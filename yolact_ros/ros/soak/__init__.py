"""A soak of the node: random images, restarts and requests for minutes or hours."""
