"""Win accuracy back after a removal: closed form first, training last.

    recover_closed_form → fine-tune with the dense model as teacher

The first needs no labels. Each takes graphs and gives new ones. With nothing removed, neither the closed
form nor zero epochs of training change an output.
"""

from __future__ import annotations

from edgeprune.recovery.closed_form import recover_closed_form
from edgeprune.recovery.finetune import FineTune, finetune, penultimate
from edgeprune.recovery.fits import Fit

__all__ = ["FineTune", "Fit", "finetune", "penultimate", "recover_closed_form"]
