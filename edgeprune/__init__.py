"""edgeprune: compress a trained PyTorch model for a small computer, with proof."""

from __future__ import annotations

__version__ = "0.1.0"
