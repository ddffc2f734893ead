"""Import what a user named as `package.module:attribute`.

The current directory is importable, as it is for `python -m`. Naming an object
on the command line is the user's consent to run its module: nothing here is
called for a name that came out of a model file.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from edgeprune.errors import EdgepruneError


def import_object(spec: str, *, option: str, error: type[EdgepruneError]) -> Any:
    """Import `package.module:attribute` and return the attribute.

    Args:
        spec: the name; the attribute may be dotted (`module:Class.method`).
        option: what the user typed it after (`--model`), for the message.
        error: the class to raise.

    Raises:
        error: the name is malformed, or the module cannot be imported, or it lacks the attribute.
    """
    module_name, colon, attribute = spec.partition(":")
    if not (colon and module_name and attribute):
        raise error(
            f"{option} {spec}: expected package.module:name",
            tip=f"write the module's dotted name, a colon and the object's name, as in {option} nets:build",
        )
    if module_name.endswith(".py") or "/" in module_name:
        raise error(
            f"{option} {spec}: {module_name} is a file name, not a module name",
            tip="use the dotted name from the current directory, as in folder.file:name",
        )
    here = make_current_folder_importable()
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        missing = exc.name or module_name
        if module_name == missing or module_name.startswith(missing + "."):
            raise error(
                f"{option} {spec}: no module named {missing}",
                tip=f"run from the folder that holds it (now {here}), or install it",
            ) from exc
        raise error(
            f"{option} {spec}: importing {module_name} needs {missing}, which is not installed"
        ) from exc
    except Exception as exc:
        raise error(f"{option} {spec}: importing {module_name} raised {type(exc).__name__}: {exc}") from exc
    for part in attribute.split("."):
        if not hasattr(value, part):
            members = vars(value) if hasattr(value, "__dict__") else {}
            near = [n for n, v in members.items() if getattr(v, "__module__", None) == module_name][:8]
            raise error(
                f"{option} {spec}: {module_name} has no {attribute}",
                tip=f"it has {', '.join(near)}" if near else "",
            )
        value = getattr(value, part)
    return value


def make_current_folder_importable() -> str:
    """Put the current folder first on the path, as `python -m` does; its name."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    return here
