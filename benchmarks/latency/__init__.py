"""Latency: predicted against measured milliseconds, and plans for latency against plans for MACs."""
