"""Load a model whose weights carry `torch.nn.utils.prune` hooks: the plain model and its mask.

A state dict with X_orig and X_mask does not fit the class that it was trained in, and a
module with hooks does not export as plain parameters. Both are undone here.
Guarantee: a file without such hooks loads exactly as `load_model` loads it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgeprune.errors import ModelError
from edgeprune.frontend.checkpoints import build, fill, matched, tensors_in
from edgeprune.frontend.examples import example_tensors
from edgeprune.frontend.load import LoadedModel, digest_of, load_model
from edgeprune.frontend.loaded import from_module
from edgeprune.frontend.sniff import sniff
from edgeprune.masks import Mask, fuse_pruned, split_prune_state
from edgeprune.masks.sources import MASK, ORIG
from edgeprune.paths import read_file

NOTE = "undid torch.nn.utils.prune: its masks are applied to the weights"


def load_with_prune_masks(
    path: str | Path,
    *,
    factory: str | None = None,
    input_shapes: Sequence[Sequence[int]] | None = None,
    input_dtypes: Sequence[str | None] | None = None,
    trust_pickle: bool = False,
    state: str | None = None,
    dequantise: bool = False,
) -> tuple[LoadedModel, Mask | None]:
    """As `load_model`; gives the mask that prune hooks held beside it, None where there were none.

    Raises:
        ModelError, UnsafeModelError: as `load_model`.
        MaskError: hooks that do not fit together.
    """
    content = _content(Path(path).expanduser())
    weights = None if content is None or factory is None else _state(content, str(path), state)
    if weights is not None and factory is not None and has_prune_masks(weights):
        dense, mask = split_prune_state(weights)
        module = build(factory)
        names, _ = matched(dense, module.state_dict())
        undone = fill(module, dense, str(path), factory)
        mask = Mask({names.get(name, name): keep for name, keep in mask.keep.items()})
        if not input_shapes:
            raise ModelError(
                f"{path}: the shape of the model's input is not known",
                tip="add --input-shape without batch, for example --input-shape 1,28,28",
            )
        loaded = from_module(module, example_tensors(input_shapes, input_dtypes))
        digest = digest_of(content or b"", state)
        return replace(loaded, source=str(path), sha256=digest, notes=(NOTE, *undone, *loaded.notes)), mask
    loaded = load_model(
        path,
        factory=factory,
        input_shapes=input_shapes,
        input_dtypes=input_dtypes,
        trust_pickle=trust_pickle,
        state=state,
        dequantise=dequantise,
    )
    if loaded.module is None or not has_prune_masks(loaded.module.state_dict()):
        return loaded, None
    twin, mask = fuse_pruned(loaded.module)
    return replace(loaded, module=twin, notes=(*loaded.notes, NOTE)), mask


def has_prune_masks(state: dict[str, Any]) -> bool:
    """Whether a state dict holds a pair X_orig, X_mask."""
    return any(name.endswith(ORIG) and name.removesuffix(ORIG) + MASK in state for name in state)


def _content(path: Path) -> bytes | None:
    try:
        return read_file(path, ModelError)
    except ModelError:  # load_model says what is wrong with it
        return None


def _state(content: bytes, source: str, key: str | None) -> dict[str, torch.Tensor] | None:
    """The tensors of a plain weights file; None for anything else, which load_model judges."""
    try:
        kind = sniff(content, source)
        if kind == "safetensors":
            import safetensors.torch

            return tensors_in(dict(safetensors.torch.load(content)), source, key)[0]
        if kind not in ("torch-zip", "pickle"):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return tensors_in(saved, source, key)[0]
    except Exception:
        return None
