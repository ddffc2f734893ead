"""The computers that a model is compressed for: `targets/NAME.toml` → Target.

    load_target("rpi4")          shipped, or overridden by a file of that name in the user's folder
    load_target("./board.toml")  a file of one's own
    list_targets()               every name that load_target takes
    misnamed()                   files of the user's that no such name reaches

The user's folder is $EDGEPRUNE_TARGETS, else ~/.config/edgeprune/targets. A file there may hold a
whole descriptor or `base = "rpi4"` and the fields that differ.
Guarantee: a Target is complete and each of its values says whether it was measured, read from a data
sheet or assumed, and where. Nothing is timed here, and nothing is sent anywhere.
Elsewhere: what a width costs on a target (bench, planning).
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from edgeprune.errors import TargetError
from edgeprune.records import Target
from edgeprune.targets.descriptor import NAME, read_descriptor, to_target
from edgeprune.targets.host import detect

__all__ = ["list_targets", "load_target", "misnamed", "shipped_folder", "user_folder"]


def load_target(name: str) -> Target:
    """Read the target called `name`, or the descriptor at `name` when it ends in .toml.

    Raises:
        TargetError: unknown name (the nearest are offered), or a malformed descriptor, with the file,
            the field, what was found and what was expected.
    """
    return _load(name, ())


def list_targets() -> tuple[str, ...]:
    """Every known name, sorted; "host" first."""
    names = {p.stem for folder in (shipped_folder(), user_folder()) for p in _descriptors(folder)}
    return tuple(sorted(names, key=lambda n: (n != "host", n)))


def misnamed() -> tuple[Path, ...]:
    """Files of the user's folder that no name reaches: their own has upper-case letters, or others."""
    folder = user_folder()
    files = sorted(folder.glob("*.[tT][oO][mM][lL]")) if folder.is_dir() else []
    return tuple(p for p in files if not (NAME.fullmatch(p.stem) and p.suffix == ".toml"))


def shipped_folder() -> Path:
    """Where the descriptors that come with edgeprune lie: in a wheel, else in the checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "_targets", package.parent / "targets"):
        if (folder / "host.toml").is_file():
            return folder
    raise TargetError(
        f"no target descriptors beside {package}",
        tip="install edgeprune again, or run it from a complete checkout",
    )


def user_folder() -> Path:
    """The folder whose descriptors override those shipped. It need not exist."""
    named = os.environ.get("EDGEPRUNE_TARGETS")
    if named:
        return Path(named)
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "edgeprune" / "targets"


def _load(name: str, seen: tuple[Path, ...]) -> Target:
    path, user = _find(name, seen)
    values = read_descriptor(path)
    if "base" in values:
        base = _load(str(values["base"]), (*seen, path))
    else:
        base = None
    detected = detect() if values.get("detect") else None
    return to_target(path, values, user=user, base=base, detected=detected)


def _find(name: str, seen: tuple[Path, ...]) -> tuple[Path, bool]:
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise TargetError(f"{name}: no such descriptor", tip="check the path, or see `edgeprune targets`")
        if path in seen:
            raise TargetError(f"{path}: base: leads back to this file", tip="base it on a shipped target")
        return path, True
    # An override may be based on the shipped target of its own name, so files already open are passed over.
    candidates = [(user_folder() / f"{name}.toml", True), (shipped_folder() / f"{name}.toml", False)]
    if NAME.fullmatch(name):
        for path, user in candidates:
            if path.is_file() and path not in seen:
                return path, user
        if any(path in seen for path, _ in candidates):
            raise TargetError(
                f"{seen[-1]}: base: {name!r} leads back to itself", tip="base it on another target"
            )
    known = list_targets()
    nearest = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    where = f"{seen[-1]}: base: unknown target {name!r}" if seen else f"unknown target {name!r}"
    offer = f"did you mean {' or '.join(nearest)}?" if nearest else f"known are {', '.join(known)}"
    raise TargetError(where, tip=f"{offer} (`edgeprune targets` lists them; your own go to {user_folder()})")


def _descriptors(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [p for p in folder.glob("*.toml") if NAME.fullmatch(p.stem)]
