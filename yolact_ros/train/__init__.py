"""Train networks: augmentation, matching, losses and the training loop."""
