"""Win accuracy back after a removal: closed form first, training last.

    compensate → recalibrate batch norm → fine-tune with the dense model as teacher

The first two need no labels. Each takes graphs and gives new ones.
"""

from __future__ import annotations

from edgeprune.recovery.batchnorm import recalibrate
from edgeprune.recovery.closed_form import recover_closed_form
from edgeprune.recovery.compensate import compensate
from edgeprune.recovery.finetune import FineTune, finetune, penultimate

__all__ = ["FineTune", "compensate", "finetune", "penultimate", "recalibrate", "recover_closed_form"]
