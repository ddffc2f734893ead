"""The Mask: which weights stay, one boolean array per state tensor.

Gives reading, writing and checking against a model. Guarantee: a Mask that was checked
names only tensors of the model, with their shapes; tensors that it does not name stay
whole. Elsewhere: making masks (sources), what they say about components (evidence).
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.components import Couplings
from edgeprune.errors import MaskError, OutputError
from edgeprune.paths import open_file, printable, require_replaceable
from edgeprune.records.npz import read_npz

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mask:
    """State tensor name -> boolean array of the tensor's shape; True keeps the weight."""

    keep: dict[str, BoolArray]

    @property
    def density(self) -> float:
        """Share of the named tensors' weights that stay; 1.0 for an empty mask."""
        total = sum(k.size for k in self.keep.values())
        return sum(int(k.sum()) for k in self.keep.values()) / total if total else 1.0

    def sha256(self) -> str:
        """Identity of the mask: names, shapes and bits."""
        digest = hashlib.sha256()
        for name in sorted(self.keep):
            keep = self.keep[name]
            digest.update(f"{name} {keep.shape}".encode() + np.packbits(keep).tobytes())
        return digest.hexdigest()


def read_mask(path: Path) -> Mask:
    """Read an npz with one array of zeros and ones (or booleans) per state tensor.

    Raises:
        MaskError: missing, no npz, pickled, empty, or values other than 0 and 1.
    """
    tip = "save it with numpy.savez(path, **{'conv1.weight': keep, ...}), keep of the weight's shape"
    if not path.is_file():
        raise MaskError(f"--mask {printable(path)}: no such file", tip=tip)
    with open_file(path, MaskError) as stream:
        arrays = read_npz(stream, f"--mask {printable(path)}", MaskError, tip=tip)
    if not arrays:
        raise MaskError(f"--mask {path}: holds no array", tip=tip)
    return Mask({name: binary(name, array) for name, array in arrays.items()})


def write_mask(mask: Mask, path: Path) -> None:
    """Write a mask as npz; the file appears whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    require_replaceable(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    arrays: dict[str, Any] = dict(mask.keep)
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path}: the mask cannot be written: {error.strerror}") from error


def binary(name: str, array: Any) -> BoolArray:
    """An array or tensor of booleans, or of zeros and ones, as booleans.

    Raises:
        MaskError: any other value, with the tensor's name and the first such value.
    """
    if hasattr(array, "detach"):
        array = array.detach().cpu().double().numpy()
    values = np.asarray(array)
    if values.dtype == np.bool_:
        return values
    odd = values[(values != 0) & (values != 1)] if values.dtype.kind in "iuf" else values.reshape(-1)[:1]
    if odd.size or values.dtype.kind not in "iuf":
        shown = odd.reshape(-1)[0] if odd.size else values.dtype
        raise MaskError(
            f"mask of {name!r}: holds {shown!s}; a mask is 1 (keep) or 0 (prune)",
            tip="scores become a mask through mask_from_scores(scores, density)",
        )
    return values.astype(bool)


def shapes_of(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every array or tensor of a state dict."""
    return {name: tuple(int(n) for n in value.shape) for name, value in state.items()}


def coupled_shape(couplings: Couplings, name: str) -> tuple[int, ...]:
    """Shape of a coupled state tensor (floating point, by its canonical name)."""
    return tuple(1 if e is None else len(couplings.channel_maps[e]) for e in couplings.tensors[name])


def canonical(mask: Mask, couplings: Couplings) -> dict[str, BoolArray]:
    """The mask under the names that couplings use, checked against their shapes.

    Raises:
        MaskError: an unknown tensor, another shape, or two names of one tied tensor that differ.
    """
    known = {name: coupled_shape(couplings, target) for name, target in couplings.aliases.items()}
    check_mask(mask, known)
    kept_of: dict[str, BoolArray] = {}
    for name, keep in mask.keep.items():
        target = couplings.aliases[name]
        if target in kept_of and not np.array_equal(kept_of[target], keep):
            raise MaskError(
                f"mask of {name!r}: differs from that of {target!r}, which is the same tied tensor",
                tip="give one mask for a tied tensor, under either name",
            )
        kept_of[target] = keep
    return kept_of


def restrict(mask: Mask, couplings: Couplings, removed: BoolArray) -> Mask:
    """The mask of what is left when components go, under canonical names."""
    kept = {}
    for name, keep in canonical(mask, couplings).items():
        rows = [
            np.arange(size) if e is None else np.flatnonzero(couplings.keep_mask(e, removed))
            for size, e in zip(coupled_shape(couplings, name), couplings.tensors[name], strict=True)
        ]
        kept[name] = keep[np.ix_(*rows)]
    return Mask(kept)


def check_mask(mask: Mask, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a mask that does not fit a model.

    Args:
        shapes: state tensor name -> shape (`shapes_of(state)`).

    Raises:
        MaskError: names the tensor, both shapes, and the next step.
    """
    for name, keep in mask.keep.items():
        if name not in shapes:
            near = difflib.get_close_matches(name, shapes, n=1, cutoff=0.5)
            raise MaskError(
                f"mask of {name!r}: the model has no tensor of that name ({len(shapes)} others)",
                tip=f"did you mean {near[0]!r}?" if near else f"names look like {next(iter(shapes), '')!r}",
            )
        if keep.shape != shapes[name]:
            raise MaskError(
                f"mask of {name!r}: shape {_text(keep.shape)}, but the weight has {_text(shapes[name])}",
                tip="give one value per weight element, for the network that these weights are from",
            )


def _text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
