"""--mask FILE|weights, and masks that torch.nn.utils.prune left in a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeprune.frontend.load import LoadedModel
    from edgeprune.masks import Mask

MASK_HELP = "npz of zeros and ones per weight, or `weights`: what is zero in them already."


def read_mask_option(spec: str | None, hooks: Mask | None, loaded: LoadedModel) -> Mask | None:
    """The mask asked for; prune hooks that the file holds count too. None if there is none.

    Raises:
        MaskError: no readable mask.
    """
    from edgeprune.masks import Mask, mask_from_zeros, read_mask

    if spec is None:
        return hooks
    if spec == "weights":
        state = loaded.program.state_dict if loaded.program is not None else None
        if state is None and loaded.module is not None:
            state = loaded.module.state_dict()
        return mask_from_zeros({name: t for name, t in (state or {}).items() if t.is_floating_point()})
    mask = read_mask(Path(spec))
    if hooks is None:
        return mask
    shared = {n: mask.keep[n] & hooks.keep[n] for n in mask.keep.keys() & hooks.keep.keys()}
    return Mask({**hooks.keep, **mask.keep, **shared})
