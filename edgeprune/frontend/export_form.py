"""Modules that say themselves how they are exported.

A detector may give the feature maps of its training losses beside its boxes, and have a flag `export` that
leaves them out (Ultralytics' heads do). A network that is loaded to be compressed is exported in the end, so
the flag is set on the copy that was loaded: outputs of training alone would be pinned, compared and shipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def use_export_form(module: torch.nn.Module) -> tuple[str, ...]:
    """Set every plain flag `export` that is False; changes `module`, and gives a note where there was one."""
    flagged = [m for m in module.modules() if getattr(m, "export", None) is False]
    for one in flagged:
        one.export = True
    if not flagged:
        return ()
    kinds = ", ".join(sorted({type(m).__name__ for m in flagged}))
    return (f"{kinds}: exported with its own flag `export` set, which leaves out what only training reads",)
