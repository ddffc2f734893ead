"""LSTM, GRU and plain RNN: hidden units are free, each with its rows in every gate.

A hidden unit is a row of all gates in the input and the recurrent weight, a column of
the recurrent weight, an index of the states and of the output. Layers were split apart
on load (normalise), so each keeps its own width; the two directions of one layer share
theirs, because one operator holds both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from edgeprune.coupling.labels import Value, along
from edgeprune.coupling.opspec import OperatorCall, operators
from edgeprune.coupling.rules import unknown
from edgeprune.coupling.ties import LayerAtoms, Ties

aten = torch.ops.aten
GATES = {
    aten.lstm.input: 4, aten.gru.input: 3, aten.rnn_tanh.input: 1, aten.rnn_relu.input: 1,
    aten.lstm_cell.default: 4, aten.gru_cell.default: 3, aten.rnn_tanh_cell.default: 1,
    aten.rnn_relu_cell.default: 1,
}  # fmt: skip


@operators(aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
def recurrent(ties: Ties, call: OperatorCall) -> Any:
    """Every layer and direction is a cell; all lose the same units, and the states follow."""
    x, states, weights, biased, layers = call.args[:5]
    directions = 2 if call.arg(7, "bidirectional") else 1
    states = list(states) if isinstance(states, list | tuple) else [states]
    per = len(weights) // (layers * directions)
    plain = 4 if biased else 2
    if per not in (plain, plain + 1) or len(x.shape) != 3:
        return unknown(ties, call)
    gates = GATES[call.node.target]
    ties.pin_others(x, (2,), f"{call.where} runs over it")
    source = ties.vector(x, 2, call.where)
    steps = math.prod(x.shape[:2]) / call.batch
    first: tuple[torch.Tensor, torch.Tensor] | None = None
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            start = per * (layer * directions + direction)
            cell = weights[start : start + plain]
            projection = weights[start + plain] if per > plain else None
            units, fed = _cell(ties, call, source, cell, gates, steps, projection)
            outputs.append(fed)
            if first is not None:
                for a, b in zip(first, (units, fed), strict=True):
                    ties.tie(a, b, f"{call.where} holds several layers or directions")
            first = first or (units, fed)
        source = torch.cat(outputs)
    assert first is not None
    kept = [first[1], first[0]]  # of an LSTM with a projection, only the cells are as wide as the gates
    for state, atoms in zip(states, kept, strict=False):
        ties.tie(ties.vector(state, 2, call.where), atoms, f"{call.where} starts from a fixed state")
        ties.pin_others(state, (2,), call.where)
    shapes = [tuple(s) for s in call.shape]
    return [
        Value(shapes[0], along(shapes[0], 2, source)),
        *(Value(shape, along(shape, 2, atoms)) for shape, atoms in zip(shapes[1:], kept, strict=False)),
    ]


@operators(
    aten.lstm_cell.default, aten.gru_cell.default, aten.rnn_tanh_cell.default, aten.rnn_relu_cell.default
)  # fmt: skip
def cell(ties: Ties, call: OperatorCall) -> Any:
    """One step: as above without a time dimension."""
    x, states, *weights = call.args
    states = list(states) if isinstance(states, list | tuple) else [states]
    tensors = [w for w in weights if isinstance(w, Value)]
    ties.pin_others(x, (1,), f"{call.where} runs over it")
    units, _ = _cell(
        ties, call, ties.vector(x, 1, call.where), tensors, GATES[call.node.target], x.shape[0] / call.batch
    )
    for state in states:
        ties.tie(ties.vector(state, 1, call.where), units, f"{call.where} starts from a fixed state")
        ties.pin_others(state, (1,), call.where)
    if isinstance(call.shape, list):
        return [Value(tuple(s), along(tuple(s), 1, units)) for s in call.shape]
    return Value(tuple(call.shape), along(tuple(call.shape), 1, units))


def _cell(
    ties: Ties,
    call: OperatorCall,
    source: torch.Tensor,
    weights: Sequence[Value],
    gates: int,
    steps: float,
    projection: Value | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tie one layer in one direction; gives the atoms of its cells, and of what it puts out and feeds back.

    The two are the same but for an LSTM with `proj_size`, whose projection reads the cells. The operator
    knows that it has one by the widths of its two states, which must stay unequal: as many cells as there
    are outputs now, and one more, stay.
    """
    where = call.where
    w_input, w_hidden, *biases = weights
    rows = ties.vector(w_input, 0, where).reshape(gates, -1)
    units = rows[0]
    ties.tie(rows[:1].expand_as(rows), rows, f"{where} has gates that are not free")
    for other in (w_hidden, *biases):
        ties.tie(ties.vector(other, 0, where), rows.reshape(-1), f"{where} has gates that are not free")
    fed = units
    if projection is not None:
        fed, cells = ties.vector(projection, 0, where), ties.vector(projection, 1, where)
        ties.tie(cells, units, f"{where} projects units that are not free")
        ties.read(cells)
        ties.pin(cells[: len(fed) + 1], f"{where} needs more cells than outputs")
        ties.cost(call.node.name, steps, fed, cells)
    columns = ties.vector(w_hidden, 1, where)
    ties.tie(columns, fed, f"{where} feeds back units that are not free")
    reads = ties.vector(w_input, 1, where)
    ties.tie(source, reads, f"{where} reads channels that are not free")
    ties.read(columns)
    ties.read(reads)
    at = len(call.args[0].shape) - 1
    ties.layers.append(
        LayerAtoms(
            call.node.name, "recurrent", call.name(0), None, None,
            1, 0, at, at, reads, rows.reshape(-1), 1,
        )
    )  # fmt: skip
    ties.cost(call.node.name, steps, reads, rows.reshape(-1))
    ties.cost(call.node.name, steps, columns, rows.reshape(-1))
    return units, fed
