"""What a file's users rely on: the names of its inputs and outputs, and its batch."""

from __future__ import annotations

from dataclasses import dataclass

INTERFACE_FILE = "interface.json"  # in a .pt2, so that its file keeps the names


@dataclass(frozen=True)
class Interface:
    """Names in order; `batch_name` of a free batch, `fixed_batch` of one that is not free."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batch_name: str = "batch"
    fixed_batch: int | None = None
