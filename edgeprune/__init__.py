"""edgeprune: compress a trained PyTorch model for a small computer, with proof.

    import edgeprune
    result = edgeprune.compress(model, (x, y), max_drop=0.5)

Importing the package imports neither torch nor NumPy; what it offers loads on use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprune import information
    from edgeprune.api import compress
    from edgeprune.run.part_files import export_parts
    from edgeprune.run.parts import prune_parts

__all__ = ["__version__", "compress", "export_parts", "information", "prune_parts"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "compress":
        return importlib.import_module("edgeprune.api").compress
    if name == "export_parts":
        return importlib.import_module("edgeprune.run.part_files").export_parts
    if name == "prune_parts":
        return importlib.import_module("edgeprune.run.parts").prune_parts
    if name == "information":
        return importlib.import_module("edgeprune.information")
    raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
