"""Whole runs of `edgeprune compress` on the trained examples: accuracy, 8 bits, validation by person."""
