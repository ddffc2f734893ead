"""Deliver a finished run to a device: a bundle, checked there, switched in one step, rolled back at will.

open_bundle(RUN_DIR)                     the files and their manifest; refuses what is hostile or damaged
ship(bundle, device, path)               upload, prove on the device, make current
rollback(device, path)                   the release before is current again
list_releases(device, path)              what is there
pick(RUN_DIR, point, folder)             another file of the run's front, as a folder to ship
"""

from edgeprune.ship.bundle import open_bundle, write_bundle
from edgeprune.ship.delivery import list_releases, rollback, ship
from edgeprune.ship.parts import Bundle
from edgeprune.ship.picking import choices, pick

__all__ = ["Bundle", "choices", "list_releases", "open_bundle", "pick", "rollback", "ship", "write_bundle"]
