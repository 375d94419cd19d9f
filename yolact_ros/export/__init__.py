"""Export of checkpoints to bundles that run without torch."""
