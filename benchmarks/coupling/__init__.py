"""Seconds of coupling and surgery beside Torch-Pruning, and how they grow with the width."""
