"""Unstructured masks: where they come from, and what they say about removable units.

`Mask` holds one boolean array per state tensor. It is read from a file, from
`torch.nn.utils.prune`, from zeros in the weights or from scores; `evidence` and `order`
turn it into an order of components, `mask_coverage` says afterwards what became of it.
Elsewhere: removal without loss (surgery.lossless), how much to remove (planning).
"""

from __future__ import annotations

from edgeprune.masks.coverage import MaskCoverage, TensorCoverage, mask_coverage
from edgeprune.masks.evidence import Evidence, evidence, order
from edgeprune.masks.mask import Mask, check_mask, read_mask, write_mask
from edgeprune.masks.sources import fuse_pruned, mask_from_scores, mask_from_zeros, split_prune_state

__all__ = [
    "Evidence",
    "Mask",
    "MaskCoverage",
    "TensorCoverage",
    "check_mask",
    "evidence",
    "fuse_pruned",
    "mask_coverage",
    "mask_from_scores",
    "mask_from_zeros",
    "order",
    "read_mask",
    "split_prune_state",
    "write_mask",
]
