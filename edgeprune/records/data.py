"""How samples were parted."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Splits:
    """Four disjoint, sorted index arrays into one dataset (int64).

    `test_origin` and `validation_origin` say where these parts come from: the source itself, or held out
    by the seed.
    `groups` counts the groups on each side, where samples belong together; no group is on two sides.
    """

    seed: int
    train: np.ndarray[Any, np.dtype[np.int64]]
    calibration: np.ndarray[Any, np.dtype[np.int64]]
    validation: np.ndarray[Any, np.dtype[np.int64]]
    test: np.ndarray[Any, np.dtype[np.int64]]
    test_origin: str
    groups: dict[str, int] | None = None
    validation_origin: str = "held out"

    def to_json(self) -> dict[str, Any]:
        """Sizes and the sha256 of each part's indices, in place of the indices themselves."""
        parts = {name: getattr(self, name) for name in ("train", "calibration", "validation", "test")}
        return {
            "seed": self.seed,
            "test_origin": self.test_origin,
            "validation_origin": self.validation_origin,
            "sizes": {name: len(indices) for name, indices in parts.items()},
            "sha256": {
                name: hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()
                for name, indices in parts.items()
            },
            **({} if self.groups is None else {"groups": self.groups}),
        }
