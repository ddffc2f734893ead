"""Emulated ARM cores (arm64), and a sensor stream at fixed rates (realtime)."""
