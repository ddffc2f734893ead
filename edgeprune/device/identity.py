"""Which target a device is: what it says of itself beside the descriptors.

    target_of(device, load_target("host"))   the descriptor of its board, or what is known without one
    require_board(device, target)            refuse a board that is not the one named

Elsewhere: fitness and architecture (remote), the descriptors (targets).
"""

from __future__ import annotations

from dataclasses import replace

from edgeprune.device.remote import Device
from edgeprune.errors import DeviceError, TargetError
from edgeprune.records import Target
from edgeprune.targets import list_targets, load_target


def board_target(board: str | None) -> Target | None:
    """The target whose title the board's own name begins with ("Raspberry Pi 4 Model B Rev 1.4")."""
    found: list[Target] = []
    for name in list_targets() if board else ():
        try:
            target = load_target(name)
        except TargetError:  # a malformed descriptor of the user's: `edgeprune targets` says so
            continue
        if board and not target.local and board.startswith(target.title):
            found.append(target)
    return max(found, key=lambda t: (len(t.title), not t.user), default=None)


def target_of(device: Device, target: Target) -> Target:
    """The target that a run on `device` is for.

    A target that was named stays, when the board is none of another kind. With none named (the host's
    descriptor stands for that) it is the board's own descriptor, or one that knows the architecture only;
    the name of that is the device's.

    Raises:
        DeviceError: the board is of another kind than the target.
    """
    if not target.local:
        require_board(device, target)
        return target
    facts = device.preflight()
    known = board_target(facts.get("board"))
    if known is not None:
        return known
    arch = "aarch64" if facts["architecture"] in ("aarch64", "arm64") else "x86_64"
    title = str(facts.get("board") or f"{device.remote.destination} ({arch})")
    name = device.remote.destination
    return replace(
        target, name=name, title=title, local=False, arch=arch, core="unknown", threads=1, emulated_cpu=None
    )


def require_board(device: Device, target: Target) -> None:
    """Refuse a device whose board is known to have other cores than the target.

    Raises:
        DeviceError: it has; both are named.
    """
    board = device.preflight().get("board")
    known = board_target(board)
    if known is not None and known.core != target.core:
        raise DeviceError(
            f"{device.remote.destination} is a {board} ({known.core}), but --target {target.name} has"
            f" {target.core}",
            tip=f"leave --target out, or give --target {known.name}",
        )
