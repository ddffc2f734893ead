"""Apply a removal to a Trace: slice tensors, rewrite shape constants, certify.

`analyse` couples a trace and proves every movement map by a trial; `cut` removes.
Elsewhere: which components to remove (planning), folding dead channels (lossless).
"""

from __future__ import annotations

from edgeprune.surgery.cut import analyse, cut, retrace
from edgeprune.surgery.oracle import masked, zeroed

__all__ = ["analyse", "cut", "masked", "retrace", "zeroed"]
