"""Define the networks in PyTorch, which robots do not need."""
