"""Data movement, observed: the operator itself moves the labels.

One function covers every operator that only rearranges elements. It runs on label
tensors with the same arguments, so no pattern per architecture is needed, and the
map is right by construction. Labels are repeated, not copied, along what they do not
depend on, and a reshape moves only the blocks of dimensions in which they vary: the
work follows the channels, not the size of the value. Whether the operator commutes with
removal is another question: surgery replays each one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from edgeprune.coupling.labels import Value, keep_alive, varying
from edgeprune.coupling.opspec import spec_of
from edgeprune.coupling.ties import Ties


def move(
    ties: Ties, target: Any, args: Sequence[Any], kwargs: dict[str, Any], where: str, *, pin: bool = True
) -> Any:
    """Labels of a movement operator's output(s): run it on every label of its source.

    Args:
        args: concrete arguments with Values in place of tensors; the first is the source.

    Returns a Value, or a list of them for split-like operators; None where an index depends
    on the data, after pinning every label if `pin`.
    """
    source, *rest = args
    plain = [_plain(a) for a in rest]
    if any(p is None and a is not None for p, a in zip(plain, rest, strict=True)):
        for label in source.labels if pin else ():
            ties.pin(label, f"{where} moves channels by an index that depends on the data")
        return None
    blank = target(torch.zeros(1, dtype=torch.int64).expand(source.shape), *plain, **kwargs)
    spec = spec_of(target)
    if spec is not None and spec.replay == "reshape":
        moved = [_reshaped(label, source.shape, tuple(blank.shape)) for label in source.labels]
        return _value(ties, blank.shape, moved, where)
    moved = [target(label.expand(source.shape), *plain, **kwargs) for label in source.labels]
    if isinstance(blank, torch.Tensor):
        value = _value(ties, blank.shape, moved, where)
        if spec is not None and spec.replay == "permute" and source.parameter:
            return replace(value, parameter=source.parameter, axes=_permuted(target, source, plain))
        return value
    return [_value(ties, b.shape, [m[i] for m in moved], where) for i, b in enumerate(blank)]


def roll(ties: Ties, source: Value, shifts: Sequence[int], dims: Sequence[int], where: str) -> Value:
    """Cyclic shift: removal along a shifted dimension does not commute, so it is pinned there."""
    rank = len(source.shape)
    shifted = {d % rank for d in dims} or set(range(rank))
    kept = []
    for label in source.labels:
        if set(varying(label)) & shifted:
            ties.pin(label, f"{where} rolls channels around")
        else:
            kept.append(label)
    return Value(source.shape, tuple(kept))


def join(ties: Ties, operands: Sequence[Value], dim: int, shape: tuple[int, ...], where: str) -> Value:
    """Concatenation: branches stay apart along `dim`, and are tied in every other dimension.

    Labels are matched by the dimensions other than `dim` that they depend on. An operand
    that is free there while another is not has nothing to follow, and is pinned.
    """
    operands = _narrowed_to_partners(ties, operands, dim, where)
    keys: list[frozenset[int]] = []
    for value in operands:
        for label in value.labels:
            key = frozenset(varying(label)) - {dim}
            if key not in keys:
                keys.append(key)
    out: list[torch.Tensor] = []
    for key in keys:
        parts = [[x for x in v.labels if frozenset(varying(x)) - {dim} == key] for v in operands]
        if not key or any(dim in varying(x) for part in parts for x in part):
            full = [
                (p[0] if p else torch.zeros([1] * len(shape), dtype=torch.int64)).expand(v.shape)
                for p, v in zip(parts, operands, strict=True)
            ]
            for part in parts:
                for extra in part[1:]:
                    ties.pin(extra, f"{where}: two free factors meet in one dimension")
            out.append(torch.cat(full, dim))
        elif all(parts):
            first = parts[0][0]
            for part in parts[1:]:
                ties.tie(first, part[0], f"{where} joins branches")
            out.append(first)
        else:
            for label in (x for part in parts for x in part):
                ties.pin(label, f"{where} joins them with channels that are not free")
    return Value(shape, keep_alive(out))


def _narrowed_to_partners(ties: Ties, operands: Sequence[Value], dim: int, where: str) -> list[Value]:
    """Operands whose labels depend on no more dimensions than those of the branch that has fewest.

    A branch that went through a convolution has only the width of its heads free; one that did not
    (a class token) could lose heads or widths. Joined, both can lose widths alone.
    """
    narrowed = []
    for value in operands:
        labels = []
        for label in value.labels:
            dims = frozenset(varying(label))
            fewer = [
                frozenset(varying(x)) for other in operands if other is not value for x in other.labels
                if dim not in dims and frozenset(varying(x)) < dims and not _has(other, dims)
            ]  # fmt: skip
            target = min(fewer, key=len, default=dims)
            taken = target != dims and _has(value, target)
            left = None if taken else ties.collapse(label, set(dims - target), f"{where} joins branches")
            labels.append(label if left is None else left)
        narrowed.append(Value(value.shape, tuple(labels)))
    return narrowed


def _has(value: Value, dims: frozenset[int]) -> bool:
    return any(frozenset(varying(label)) == dims for label in value.labels)


def blocks(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[range, range]]:
    """The shortest runs of dimensions that a reshape maps onto each other, in order.

    Elements keep their order, so an element's place within a run of the old shape and its
    place within the run's partner are the same number, whatever the other dimensions are.
    """
    i = j = 0
    while i < len(old) or j < len(new):
        begin, first = i, j
        left = right = 1
        if i < len(old):
            left, i = old[i], i + 1
        if j < len(new):
            right, j = new[j], j + 1
        while left != right and (i < len(old) or j < len(new)):
            if j == len(new) or (left < right and i < len(old)):
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        yield range(begin, i), range(first, j)


def _reshaped(label: torch.Tensor, old: Sequence[int], new: Sequence[int]) -> torch.Tensor:
    """A label of the old shape in the new one, without the blocks in which it does not vary."""
    full, out = list(label.shape), [1] * len(new)
    for before, after in blocks(old, new):
        if any(full[d] > 1 for d in before):
            full[before.start : before.stop] = old[before.start : before.stop]
            out[after.start : after.stop] = new[after.start : after.stop]
    return label.expand(full).reshape(out)


def _permuted(target: Any, source: Value, args: Sequence[Any]) -> tuple[int, ...]:
    """Dimension of the state tensor at each dimension of a permuted view of it."""
    rank = len(source.shape)
    probe = target(torch.empty(tuple(range(2, 2 + rank)), device="meta"), *args)
    return tuple(source.axis(size - 2) for size in probe.shape)


def _plain(arg: Any) -> Any:
    """The argument with constant Values as tensors; None when one depends on data."""
    if isinstance(arg, Value):
        return arg.constant
    if isinstance(arg, list | tuple):
        items = [_plain(a) for a in arg]
        lost = any(p is None and a is not None for p, a in zip(items, arg, strict=True))
        return None if lost else items
    return arg


def _value(ties: Ties, shape: Sequence[int], moved: list[torch.Tensor], where: str) -> Value:
    labels = []
    for label in keep_alive(moved):
        if label.numel() == 1:
            ties.pin(label, f"{where} takes this channel out by its number")
        else:
            labels.append(label)
    return Value(tuple(shape), tuple(labels))
