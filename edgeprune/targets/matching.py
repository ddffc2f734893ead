"""Whether a machine can be the one that a target describes, by what the machine says of itself.

    found = match(target, facts)      facts as the runner or the preflight gives them
    found.refused                     why it surely is another machine
    found.doubts                      what could not be told

Guarantee: nothing that a machine does not say counts against it, and nothing is decided of an emulated
one. A descriptor without `board.models` describes a class of machines: boards and cores are then not
compared, instruction sets are. Elsewhere: the architecture (remote, measuring), processors (profiles).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeprune.errors import TargetError
from edgeprune.records import Target
from edgeprune.targets import list_targets, load_target
from edgeprune.targets.host import ARM_PARTS, ARM_WORDS, X86_WORDS

# What onnxruntime chooses kernels by; crypto, say, changes no time.
KERNELS = {"avx", "fma", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"}
KERNELS |= {"neon", "fp16", "dotprod", "i8mm", "bf16", "sve"}
OTHER_KERNELS = {"avx512f", "dotprod"}  # with these the float or 8-bit kernels are others altogether


@dataclass(frozen=True)
class Match:
    """Reasons against a machine being the target, and what could not be told."""

    refused: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def match(target: Target, facts: Mapping[str, Any]) -> Match:
    """Compare a target with `board`, `cores`, `parts` and `flags` of a machine, as far as it gives them."""
    if target.local or facts.get("emulated"):
        return Match()
    refused, doubts = _boards(target, facts.get("board"))
    models = board_models(target)
    count, cores = facts.get("cores"), target.cores + target.little_cores
    if models and count and count != cores:
        (refused if count > cores else doubts).append(f"it has {count} cores, {target.name} has {cores}")
    names = {ARM_PARTS.get(part) for part in facts.get("parts") or ()}
    if names and None not in names and target.core in ARM_PARTS.values() and target.core not in names:
        known = ", ".join(sorted(str(name) for name in names))
        refused.append(f"its cores are {known}, those of {target.name} {target.core}")
    flags = facts.get("flags")
    if flags and target.isa:
        words = {**X86_WORDS, **ARM_WORDS}
        has = {words[flag] for flag in flags if flag in words}
        lacks, more = KERNELS & set(target.isa) - has, KERNELS & has - set(target.isa)
        if lacks:
            refused.append(f"it has no {', '.join(sorted(lacks))}, which {target.name} has")
        if more:
            text = f"it has {', '.join(sorted(more))}, which {target.name} has not"
            (refused if more & OTHER_KERNELS else doubts).append(text)
    return Match(tuple(refused), tuple(doubts))


def board_models(target: Target) -> tuple[str, ...]:
    """The names that boards of a target give themselves; empty for a class of machines."""
    models = next((f.value for f in target.fields if f.name == "board.models"), ())
    return tuple(str(name) for name in models)


def board_target(board: str | None) -> Target | None:
    """The target whose boards call themselves so ("Raspberry Pi 4 Model B Rev 1.4"), the closest of several.

    A descriptor without models goes by its title.
    """
    matches: list[tuple[int, bool, Target]] = []
    for name in list_targets() if board else ():
        try:
            target = load_target(name)
        except TargetError:  # a malformed descriptor of the user's: `edgeprune targets` says so
            continue
        length = _length(board_models(target) or (target.title,), board)
        if length and not target.local:
            matches.append((length, not target.user, target))
    return max(matches, key=lambda row: row[:2])[2] if matches else None


def _boards(target: Target, board: str | None) -> tuple[list[str], list[str]]:
    """Refusals and doubts by the board's name."""
    models = board_models(target)
    if _length(models, board):
        return [], []
    known = board_target(board)
    if known is not None and known.name != target.name:
        text = f"it is a {board} ({known.core}), which is {known.name}, not {target.name} ({target.core})"
        # A descriptor of one's own that names no boards may well describe this one.
        mine = target.user and not models and known.core == target.core
        return ([], [text]) if mine else ([text], [])
    if not models or known is not None:
        return [], []
    called = f"it calls itself {board}" if board else "it does not say what board it is"
    return [], [f"{called}: whether it is a {target.title} cannot be told"]


def _length(names: tuple[str, ...], board: str | None) -> int:
    """Length of the longest of these names within the board's; 0 for none."""
    text = (board or "").lower()
    return max((len(name) for name in names if name.lower() in text), default=0)
