"""Take a bundle to a board over SSH, and the way back.

Guarantees: nothing is written here, and on the board `current` moves only after every file has
the manifest's hash and the model gave its recorded outputs there (deploy/agent.py does both and
holds a lock meanwhile). Whatever fails before leaves the old release serving.
"""

from __future__ import annotations

from typing import Any

from edgeprune.deploy.bundle_parts import Bundle
from edgeprune.deploy.remote import Board
from edgeprune.errors import ShipError
from edgeprune.records import Shipment


def ship(bundle: Bundle, board: Board, path: str, *, keep: int = 3) -> Shipment:
    """Upload, prove on the board, make current, keep the last `keep` releases.

    A release that is there already is proven again and made current without an upload.

    Raises:
        DeviceError: the board cannot be reached, is not fit, or of another architecture.
        ShipError: the board refused: disk full, checksum, smoke test, another ship under way.
    """
    if keep < 1:
        raise ShipError(
            f"--keep {keep}: at least the current release is kept", tip="2 or more allow a rollback"
        )
    checked_path(path)
    board.require_fit(bundle.manifest["architecture"])
    known = board.call({"do": "has", "path": path, "id": bundle.identity}, {}, error=ShipError)
    files = {} if known["there"] else bundle.files
    request = {"do": "release", "path": path, "id": bundle.identity, "keep": keep}
    answer = board.call(request, files, timeout=3600, error=ShipError)
    return _shipment(bundle.name, answer, board, bundle.bytes, bool(known["there"]))


def rollback(board: Board, path: str) -> Shipment:
    """Make the release that was current before the present one current again, proven anew.

    Raises:
        ShipError: there is none, or it is damaged.
    """
    checked_path(path)
    answer = board.call({"do": "rollback", "path": path}, {}, error=ShipError)
    return _shipment(answer["name"], answer, board, 0, True)


def list_releases(board: Board, path: str) -> dict[str, Any]:
    """`releases` (id, name, bytes, time; newest last), `current`, `history`, `path`."""
    checked_path(path)
    return board.call({"do": "list", "path": path}, {}, error=ShipError)


def checked_path(path: str) -> str:
    """Refuse a path on the board that is empty or of odd characters."""
    if not path or "\0" in path or "\n" in path or len(path) > 1000:
        raise ShipError(f"not a folder on the board: {path!r}", tip="write it as user@host:/path")
    return path


def _shipment(name: str, answer: dict[str, Any], board: Board, size: int, there: bool) -> Shipment:
    return Shipment(
        name=name,
        identity=answer["current"],
        destination=board.remote.destination,
        path=answer["path"],
        previous=answer["previous"] or None,
        bytes=size,
        uploaded=not there,
        smoke_max_abs=answer["smoke"]["max_abs"],
    )
