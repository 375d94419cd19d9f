"""Export checkpoints to bundles that run without torch."""
