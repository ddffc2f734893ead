"""Dead and unused channels: find them, and move what they carry into biases.

A channel is unused when every weight that reads it is zero, and constant when weights
and structure prove it (lossless_flow). A constant passes into the bias of each reader,
if it contributes the same to every position: through zero padding a non-zero constant
does not, and the channel stays unless loss was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.simplify.flow import Observation, lossless_kind
from edgeprune.simplify.state import LosslessState, Reader, add_bias, silence

EVEN = 1e-12  # relative spread over positions that float64 sums of equal terms may show
CHUNK = 1 << 22  # elements of per-channel contributions at a time


@dataclass(frozen=True)
class Constants:
    """Components by what is known of them, boolean, shape (count,)."""

    unused: BoolArray
    constant: BoolArray
    even: BoolArray  # constant, and the same to every position of every reader


def constants(state: LosslessState, facts: Observation) -> Constants:
    """Which eligible components carry nothing to their readers but a constant."""
    count = state.couplings.count
    used, varies, uneven = (np.zeros(count, dtype=bool) for _ in range(3))
    for reader in state.readers:
        free = reader.units >= 0
        weight = state.tensor(reader.weight).movedim(reader.layer.in_dim, 0)
        live = (weight != 0).reshape(len(reader.units), -1).any(1).numpy()
        used[reader.units[free & live]] = True
        source = facts.depends[reader.layer.source].movedim(reader.layer.channel_dim, 0)
        moves = source.reshape(len(reader.units), -1).any(1).numpy()
        varies[reader.units[free & moves]] = True
    unused = state.eligible & ~used
    constant = state.eligible & ~varies
    for reader in state.readers:
        at = reader.members(constant & ~unused)
        if at.size:
            even, sums = contributions(state, reader, facts, at)
            if not reader.takes_bias:
                even &= (sums == 0).all(1).numpy()
            uneven[reader.units[at[~even]]] = True
    return Constants(unused, constant, constant & ~uneven)


def spare(couplings: Couplings, removed: BoolArray, chosen: BoolArray) -> BoolArray:
    """The chosen components that must stay so that every dimension keeps one index."""
    spared = np.zeros(couplings.count, dtype=bool)
    while True:
        empty = couplings.emptied(removed | (chosen & ~spared))
        rows = [couplings.channel_maps[e] for e in empty]
        members = [row[chosen[row] & ~spared[row]] for row in rows]
        first = [int(m[0]) for m in members if m.size]
        if not first:
            return spared
        spared[first[0]] = True


def fold(state: LosslessState, facts: Observation, gone: BoolArray) -> tuple[LosslessState, int]:
    """A copy of the state without these constant or unused components.

    Returns it with the number of biases that took a constant other than zero.
    """
    new = state.copy()
    folded = 0
    for reader in new.readers:
        at = reader.members(gone)
        if at.size:
            _, sums = contributions(new, reader, facts, at)
            delta = sums.sum(0)
            if bool((delta != 0).any()):
                new = add_bias(new, reader, delta)
                folded += 1
    silence(new, gone)
    return LosslessState(new.traced, new.couplings, new.removed | gone), folded


def contributions(
    state: LosslessState, reader: Reader, facts: Observation, at: npt.NDArray[np.int64]
) -> tuple[BoolArray, torch.Tensor]:
    """What each constant input adds to each output of a reader.

    Args:
        at: input indices, shape (n,).

    Returns:
        whether the contribution is the same at every position, shape (n,), and its value
        (where it is not: that of the middle position), float64, shape (n, outputs).
    """
    index = torch.from_numpy(at)
    weight = state.tensor(reader.weight).double().movedim(reader.layer.in_dim, 0)[index]
    value = facts.values[reader.layer.source].detach().double()
    value = value.movedim(reader.layer.channel_dim, 0)[index]
    # An unused input may vary, or be anything: it contributes nothing.
    dead = (weight == 0).reshape(len(at), -1).all(1)
    node = state.nodes[reader.layer.node]
    if lossless_kind(node) in ("convolution", "transposed"):
        even, sums = _convolved(node, value, weight)
    else:
        positions = value.reshape(len(at), -1)
        even = _even(positions.unsqueeze(1))
        middle = positions[:, positions.shape[1] // 2]
        sums = middle[:, None] * weight.reshape(len(at), -1)
    return (even | dead).numpy(), torch.where(dead[:, None], 0.0, sums)


def _convolved(node: Any, value: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each input channel through its own columns: a grouped convolution, one group per channel.

    Args:
        value: shape (n, batch, positions...); weight: shape (n, outputs, taps...).
    """
    even, sums = [], []
    # (bias, stride, padding, dilation or output padding, groups, ...): groups becomes n.
    args, kwargs = [None, *node.args[3:]], {k: v for k, v in node.kwargs.items() if k != "bias"}
    rows = 1
    for size in value.shape[2:]:
        rows *= size
    step = max(1, CHUNK // max(1, rows * weight.shape[1]))
    for start in range(0, len(value), step):
        x, w = value[start : start + step], weight[start : start + step]
        n = len(x)
        # A channel that is constant is so in every sample; the first stands for all.
        same = (x == x[:, :1]).reshape(n, -1).all(1)
        kernel = w if lossless_kind(node) == "transposed" else w.reshape(n * w.shape[1], 1, *w.shape[2:])
        convolution_args = [*args[:4], n, *args[5:]] if len(args) > 4 else args
        named = kwargs if len(args) > 4 else {**kwargs, "groups": n}
        out = node.target(x[:, 0].unsqueeze(0), kernel, *convolution_args, **named)
        out = out.reshape(n, w.shape[1], -1)
        even.append(same & _even(out))
        sums.append(out[:, :, out.shape[2] // 2])
    return torch.cat(even), torch.cat(sums)


def _even(rows: torch.Tensor) -> torch.Tensor:
    """Whether rows of shape (n, outputs, positions) do not vary over positions, shape (n,)."""
    low, high = rows.amin(-1), rows.amax(-1)
    size = torch.maximum(low.abs(), high.abs()).amax(-1, keepdim=True)
    return ((high - low) <= EVEN * size).all(-1)
