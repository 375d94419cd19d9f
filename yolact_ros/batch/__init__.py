"""Many bags, videos and pictures over the workers of a Ray cluster."""
