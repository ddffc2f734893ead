"""LSTM, GRU and RNN: the gates of the file are put into PyTorch's order.

ONNX keeps i, o, f, c of an LSTM and z, r, h of a GRU; PyTorch i, f, c, o and r, z, h. A GRU that
multiplies by its reset gate before the product (`linear_before_reset` 0) is none that PyTorch has, and
is written out step by step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from edgeprune.frontend.onnx.table import Call, operator, refuse

ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
PLAIN = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
LONGEST = 512  # steps that are written out


@operator("LSTM", "GRU", "RNN")
def recurrent(call: Call) -> Any:
    """One layer in one or both directions, with time or batch first."""
    kind = call.step.op_type
    x, batch_first = call.tensor(0), bool(call.attr("layout", 0))
    _require_plain(call, x.shape[1 if batch_first else 0])
    x = x.transpose(0, 1) if batch_first else x
    direction = call.attr("direction", "forward")
    x = x.flip(0) if direction == "reverse" else x
    count = 2 if direction == "bidirectional" else 1
    weights = [w for d in range(count) for w in _weights(call, kind, d)]
    hidden = call.attr("hidden_size") or call.tensor(2).shape[-1]
    states = [_state(call, i, x, count, hidden, batch_first) for i in ((5, 6) if kind == "LSTM" else (5,))]
    if kind == "GRU" and not call.attr("linear_before_reset", 0):
        y, final = _gru_reset_first(call, x, weights, states[0])
        ends: tuple[torch.Tensor, ...] = (final,)
    else:
        settings = (True, 1, 0.0, False, count == 2, False)
        if kind == "LSTM":
            y, *last = torch.lstm(x, states, weights, *settings)
        else:
            y, *last = (torch.gru if kind == "GRU" else torch.rnn_tanh)(x, states[0], weights, *settings)
        ends = tuple(last)
    y = y.flip(0) if direction == "reverse" else y
    if count == 1:
        y = y.unsqueeze(2 if batch_first else 1) if not batch_first else y.transpose(0, 1).unsqueeze(2)
    else:
        y = y.unflatten(-1, (2, hidden))
        y = y.permute(1, 0, 2, 3) if batch_first else y.permute(0, 2, 1, 3)
    return (y, *((e.transpose(0, 1) for e in ends) if batch_first else ends))


def _require_plain(call: Call, steps: Any) -> None:
    """Refuse what no PyTorch layer computes."""
    kind = call.step.op_type
    names = [str(n) for n in call.attr("activations") or []]
    if names and names != PLAIN[kind] * (len(names) // len(PLAIN[kind])):
        raise refuse(call, f"its activations are {', '.join(names)}")
    if call.attr("clip") or call.attr("input_forget", 0):
        raise refuse(call, "it clips its cells or couples its gates")
    if call.has(7):
        raise refuse(call, "it has peephole weights")
    if call.has(4):
        operand = call.operands[4]
        if (
            operand is None
            or operand.numbers is None
            or not bool((np.asarray(operand.numbers) == steps).all())
        ):
            raise refuse(call, "its sequences are of several lengths")


def _weights(call: Call, kind: str, direction: int) -> list[torch.Tensor]:
    """Input weights, state weights and the two biases of one direction, gates in PyTorch's order."""
    order = ORDER[kind]
    pair = [_ordered(call.tensor(i)[direction], order) for i in (1, 2)]
    if call.has(3):
        halves = call.tensor(3)[direction].chunk(2)
        return [*pair, *(_ordered(half, order) for half in halves)]
    zeros = torch.zeros(pair[1].shape[0], dtype=pair[1].dtype)
    return [*pair, zeros, zeros.clone()]


def _ordered(weight: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    if len(order) == 1:
        return weight
    gates = weight.chunk(len(order))
    return torch.cat([gates[i] for i in order])


def _state(
    call: Call, index: int, x: torch.Tensor, count: int, hidden: int, batch_first: bool
) -> torch.Tensor:
    state = call.optional(index)
    if state is None:
        return torch.zeros(count, x.shape[1], hidden, dtype=x.dtype)
    return state.transpose(0, 1) if batch_first else state


def _gru_reset_first(
    call: Call, x: torch.Tensor, weights: list[torch.Tensor], state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """h' = (1 − z) · tanh(W x + R (r · h) + b) + z · h, written out over time."""
    length = x.shape[0]
    if not isinstance(length, int) or length > LONGEST:
        raise refuse(
            call, f"linear_before_reset is 0 over {length} steps (at most {LONGEST} are written out)"
        )
    results, finals = [], []
    for direction in range(len(weights) // 4):
        w, r, wb, rb = weights[4 * direction : 4 * direction + 4]
        h = state[direction]
        gates_r, candidate_r = r.split([2 * h.shape[-1], h.shape[-1]])
        bias = wb + rb
        inside = torch.nn.functional.linear(x.flip(0) if direction else x, w, bias)
        outputs = []
        for t in range(length):
            fixed, free = inside[t].split([2 * h.shape[-1], h.shape[-1]], -1)
            reset, keep = (fixed + h @ gates_r.t()).sigmoid().chunk(2, -1)
            candidate = (free + (reset * h) @ candidate_r.t()).tanh()
            h = (1 - keep) * candidate + keep * h
            outputs.append(h)
        y = torch.stack(outputs)
        results.append(y.flip(0) if direction else y)
        finals.append(h)
    return torch.cat(results, -1), torch.stack(finals)
