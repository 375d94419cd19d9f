"""The networks in PyTorch. Nothing here is needed on a robot."""
