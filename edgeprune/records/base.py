"""What all records share: an estimate with its interval, and the plain form of a record."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A point estimate with its interval; `level` is the two-sided coverage."""

    value: float
    low: float
    high: float
    level: float = 0.95


def to_json(value: Any) -> Any:
    """Turn records, arrays, paths and NumPy scalars into what `json.dumps` takes.

    NaN and infinity become None.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(v) for v in value]
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has neither
    if isinstance(value, Path):
        return str(value)
    return value
