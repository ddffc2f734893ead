"""Which target a board is: what it says of itself beside the descriptors.

    target_of(board, load_target("host"))   the descriptor of its board, or what is known without one
    require_board(board, target)            refuse a board that is not the one named, or say what is doubtful

Elsewhere: fitness and architecture (remote), the descriptors and what speaks for which (targets).
"""

from __future__ import annotations

from dataclasses import replace

from edgeprune.deploy.remote import Board
from edgeprune.errors import DeviceError
from edgeprune.records import Target
from edgeprune.targets.matching import board_target, match


def target_of(board: Board, target: Target) -> Target:
    """The target that a run on `board` is for.

    A target that was named stays, when the board is none of another kind. With none named (the host's
    descriptor stands for that) it is the board's own descriptor, or one that knows the architecture only;
    the name of that is the board's.

    Raises:
        DeviceError: the board is of another kind than the target.
    """
    if not target.local:
        require_board(board, target)
        return target
    facts = board.preflight()
    known = board_target(facts.get("board"))
    if known is not None:
        return known
    arch = "aarch64" if facts["architecture"] in ("aarch64", "arm64") else "x86_64"
    title = str(facts.get("board") or f"{board.remote.destination} ({arch})")
    name = board.remote.destination
    return replace(
        target, name=name, title=title, local=False, arch=arch, core="unknown", isa=(), threads=1,
        emulated_cpu=None,
    )  # fmt: skip


def require_board(board: Board, target: Target) -> tuple[str, ...]:
    """Refuse a board that surely is another machine than the target; give what could not be told.

    Raises:
        DeviceError: its board, cores or their number are others; both are named.
    """
    facts = board.preflight()
    comparison, name = match(target, facts), board.remote.destination
    if comparison.refused:
        known = board_target(facts.get("board"))
        other = f", or give --target {known.name}" if known is not None else ""
        raise DeviceError(
            f"{name} is not {target.name}: {'; '.join(comparison.refused)}", tip=f"leave --target out{other}"
        )
    return tuple(f"{name} as --target {target.name}: {doubt}" for doubt in comparison.doubts)
