"""One tiny network per coupling pattern; every weight is seeded, every net is in evaluation mode.

    net, inputs = build("residual")

`NETS` maps a pattern's name to its class; a class names its input shapes in `shapes`
(without batch; a leading "int" marks token ids). Batch norms carry random statistics, so
that removing the wrong channel shows.
"""

from __future__ import annotations

import nets_compared
import nets_detect
import nets_found
import nets_images
import nets_positions
import nets_rare
import nets_sequences
import nets_spelled
from patterns import NETS, build, inputs_of, quick_trace, settle, traced

__all__ = [
    "NETS",
    "build",
    "inputs_of",
    "nets_compared",
    "nets_detect",
    "nets_found",
    "nets_images",
    "nets_positions",
    "nets_rare",
    "nets_sequences",
    "nets_spelled",
    "quick_trace",
    "settle",
    "traced",
]
