"""Training: augmentation, matching, losses and the training loop."""
