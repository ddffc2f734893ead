"""The compiled core, or an import error that says what is missing."""

from __future__ import annotations

try:
    import edgeprune._core as core
except ImportError as error:
    raise ImportError(
        "edgeprune._core is missing: did you forget to compile? Run `pip install --no-build-isolation -e .`"
    ) from error

__all__ = ["core"]
