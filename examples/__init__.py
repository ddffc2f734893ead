"""Trained networks on real data, and the commands that trained them."""
