"""What a user's own functions and objects are called in the identity of a run: name, source and settings.

A run folder belongs to one request. A training function, a metric or a task of the user is part of it, and
none of them is a JSON value.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeprune.records import to_json


def function_identity(function: Callable[..., Any] | None) -> str | None:
    """Name and hash of the source; the name alone where there is no source."""
    if function is None:
        return None
    name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', repr(type(function)))}"
    return f"{name} {_source(function)}".rstrip()


def object_identity(value: Any) -> Any:
    """Plain values as they are; of an object its class with the hash of the source, and its attributes."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value)
    if isinstance(value, Mapping):
        return {str(key): object_identity(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [object_identity(entry) for entry in value]
    if inspect.isroutine(value) or isinstance(value, type):
        return function_identity(value)
    fields = (
        {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        if dataclasses.is_dataclass(value)
        else getattr(value, "__dict__", {})
    )
    return {"class": function_identity(type(value)), **object_identity(fields)}


def _source(thing: Any) -> str:
    try:
        return hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        return ""
