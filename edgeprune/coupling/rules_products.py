"""Products of two values: matmul, bmm, einsum; a weight on one side, or activations on both.

Each product is read as an einsum: letters that both operands and the output have are
batch (attention heads), letters that only the operands have are contracted, the rest
passes. A label that depends on several letters is settled on one: heads before width,
or width before heads where that was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from edgeprune.coupling.labels import Value, along, varying
from edgeprune.coupling.opspec import OperatorCall, operators
from edgeprune.coupling.rules import combine, unknown
from edgeprune.coupling.rules_layers import linear_like
from edgeprune.coupling.ties import Ties

aten = torch.ops.aten


@operators(aten.matmul.default, aten.mm.default, aten.bmm.default, lossless="product")
def matmul(ties: Ties, call: OperatorCall) -> Value:
    """By a stored matrix it is a linear layer; otherwise an einsum of two values."""
    a, b = call.args[:2]
    if len(b.shape) == 2 and len(a.shape) >= 2 and b.stored:
        return linear_like(ties, call, a, b, None, 0, 1, 0)
    return contract(ties, call, (a, b), *_letters(len(a.shape), len(b.shape)))


@operators(aten.baddbmm.default)
def baddbmm(ties: Ties, call: OperatorCall) -> Value:
    """A batched product, then an addition that broadcasts."""
    bias, a, b = call.args[:3]
    out = contract(ties, call, (a, b), *_letters(3, 3))
    return combine(ties, tuple(call.shape), [bias, out], call.where)


@operators(aten.einsum.default)
def einsum(ties: Ties, call: OperatorCall) -> Any:
    """Any equation without a repeated letter in one operand; an ellipsis stands for its dimensions."""
    operands = call.args[1]
    spelled = _spell(call.args[0], [len(v.shape) for v in operands])
    if spelled is None or call.arg(2, "path") is not None:
        return unknown(ties, call)
    return contract(ties, call, tuple(operands), *spelled)


def contract(
    ties: Ties, call: OperatorCall, operands: tuple[Value, ...], subscripts: Sequence[str], out: str
) -> Value:
    """Tie what is multiplied over, pass what is not; gives the output's value.

    Args:
        subscripts: a letter per dimension of each operand; sizes of 1 broadcast.
    """
    size: dict[str, int] = {}
    for value, letters in zip(operands, subscripts, strict=True):
        for letter, n in zip(letters, value.shape, strict=True):
            size[letter] = max(size.get(letter, 1), n)
    batch = {c for c in out if sum(c in s for s in subscripts) > 1}
    seen = [
        _vectors(ties, value, letters, batch, set(out), call.where)
        for value, letters in zip(operands, subscripts, strict=True)
    ]
    atoms: dict[str, torch.Tensor] = {}
    for letter, n in size.items():
        holders = [
            vectors.get(letter, torch.zeros(n, dtype=torch.int64))
            for vectors, value, letters in zip(seen, operands, subscripts, strict=True)
            if letter in letters and value.shape[letters.index(letter)] == n
        ]
        for other in holders[1:]:
            ties.tie(holders[0], other, f"{call.where} multiplies channels that are not free")
        free = next((h for h in holders if bool((h != 0).any())), None)
        if free is not None and n > 1:
            atoms[letter] = free
            if letter not in out:
                _consume(ties, call, operands, subscripts, letter, free)
    shape = tuple(call.shape)
    labels = [x for i, c in enumerate(out) if c in atoms for x in along(shape, i, atoms[c])]
    total = math.prod(n for c, n in size.items())
    factors = list(atoms.values())
    ties.cost(call.node.name, total / call.batch / math.prod(len(f) for f in factors), *factors)
    return Value(shape, tuple(labels))


def _vectors(
    ties: Ties, value: Value, letters: str, batch: set[str], out: set[str], where: str
) -> dict[str, torch.Tensor]:
    """Atoms per letter of one operand, each label settled on one letter."""
    vectors: dict[str, torch.Tensor] = {}
    for label in ties.distinct(value, where):
        dims = varying(label)
        heads = [d for d in dims if letters[d] in batch]
        width = [d for d in dims if letters[d] not in batch]
        width.sort(key=lambda d: letters[d] in out)  # contracted ones first
        order = (*width, *heads) if ties.choice.heads == "width" else (*heads, *width)
        vectors[letters[order[0]]] = ties.settle(label, order[0], f"{where} works on whole heads")
    return vectors


def _consume(
    ties: Ties,
    call: OperatorCall,
    operands: tuple[Value, ...],
    subscripts: Sequence[str],
    letter: str,
    atoms: torch.Tensor,
) -> None:
    """A contraction with a weight is a read; one of two activations has no weight to silence it."""
    weights = [v for v, s in zip(operands, subscripts, strict=True) if letter in s and v.stored]
    if weights:
        for value, letters in zip(operands, subscripts, strict=True):
            if letter in letters and value.stored:
                ties.read(ties.vector(value, letters.index(letter), call.where))
    else:
        ties.mark_contracted(atoms, f"{call.where} multiplies two activations over it")


def _letters(a: int, b: int) -> tuple[tuple[str, str], str]:
    """matmul of these ranks as subscripts: batch letters are capitals, m and n pass, k is contracted."""
    batch = "ABCDEFGHIJ"[-max(a - 2, b - 2, 0) :] if max(a, b) > 2 else ""
    left = batch[len(batch) - max(a - 2, 0) :] + ("mk" if a > 1 else "k")
    right = batch[len(batch) - max(b - 2, 0) :] + ("kn" if b > 1 else "k")
    return (left, right), batch + ("m" if a > 1 else "") + ("n" if b > 1 else "")


def _spell(equation: str, ranks: Sequence[int]) -> tuple[list[str], str] | None:
    """Subscripts without ellipsis; None where a letter repeats within an operand."""
    left, arrow, out = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks):
        return None
    extra = max(
        (r - len(p.replace("...", "")) for p, r in zip(parts, ranks, strict=True) if "..." in p), default=0
    )
    dots = "".join(chr(0x3B1 + i) for i in range(extra))

    def expand(part: str, rank: int) -> str:
        named_rank = rank - len(part.replace("...", ""))
        return part.replace("...", dots[len(dots) - named_rank :] if named_rank else "")

    spelled = [expand(p, r) for p, r in zip(parts, ranks, strict=True)]
    if not arrow:
        joined = "".join(spelled)
        out = dots + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in dots))
    else:
        out = out.replace("...", dots)
    return None if any(len(set(s)) < len(s) for s in spelled) else (spelled, out)
