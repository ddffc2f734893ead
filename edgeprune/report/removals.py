"""removed.json: what became of every channel of the dense network, and the evidence for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from edgeprune.coupling.components import Couplings
from edgeprune.graph.features import SELECTION, is_selection
from edgeprune.records.report import FirstRemoved
from edgeprune.search.rounds import stored_round
from edgeprune.search.state import RoundScores, SearchState
from edgeprune.session.context import RunContext

FIRST = 6  # channels whose evidence the report repeats


def removed_channels(
    couplings: Couplings, final: SearchState, tried: list[SearchState], run: RunContext
) -> dict[str, Any]:
    """Content of removed.json: per dense component its channels, fate, score and evidence."""
    entries: list[dict[str, Any]] = [
        {
            "component": c,
            "removed": bool(final.removed[c]),
            "group": couplings.group_names[couplings.group[c]],
        }
        for c in range(couplings.count)
    ]
    for state in _lineage(final, tried):
        stored = stored_round(run, state.record.round)
        if stored is not None:
            _enter(entries, state, stored[1], couplings)
    return {
        "schema": 1,
        "channels": _channels(couplings),
        "members": _members(couplings),
        "components": entries,
    }


def first_removed(content: Mapping[str, Any]) -> tuple[FirstRemoved, ...]:
    """The channels that went first, by round and then by rank among their peers, from removed.json's content.

    One channel stands for its component; a group is named once, so that several groups are seen.
    """
    place: dict[int, tuple[str, int]] = {}
    for layer, numbers in content["channels"].items():
        for channel, component in enumerate(numbers):
            place.setdefault(component, (layer, channel))
    scored = [
        (e["step"]["round"], e["rank"] / e["of"], e["group"], e)
        for e in content["components"]
        if e.get("step") and e["component"] in place
    ]
    rows: dict[str, FirstRemoved] = {}
    for _, _, group, e in sorted(scored, key=lambda x: x[:2]):
        if group not in rows and len(rows) < FIRST:
            layer, channel = place[e["component"]]
            rows[group] = FirstRemoved(
                layer, channel, e["score"], e["unit"], e["rank"], e["of"], e["random"]["value"],
                e.get("p_value"),
            )  # fmt: skip
    return tuple(rows.values())


def _lineage(final: SearchState, tried: list[SearchState]) -> list[SearchState]:
    """The accepted rounds, first to last."""
    path: list[SearchState] = []
    number = final.record.round
    by_number = {s.record.round: s for s in tried}
    while number:
        path.insert(0, by_number[number])
        number = by_number[number].record.asked.parent
    return path


def _enter(
    entries: list[dict[str, Any]], state: SearchState, scores: RoundScores, couplings: Couplings
) -> None:
    """Add a round's evidence to the entries of the components that it scored."""
    record = state.record
    groups = couplings.group[state.scored]
    for i, dense in enumerate(state.scored):
        peers = scores.score[groups == groups[i]]
        entry = entries[int(dense)]
        entry |= {
            "criterion": record.criterion,
            "score": float(scores.score[i]),
            "unit": record.score_unit,
            "estimator": record.estimator,
            "samples": record.samples,
            "rank": int(scores.rank[i]) + 1,
            "of": len(peers),
            "random": {
                "value": float(peers.mean()),
                "low": float(np.quantile(peers, 0.05)),
                "high": float(np.quantile(peers, 0.95)),
            },
        }
        if scores.label_nats is not None and scores.p_value is not None:
            entry |= {"label_nats": float(scores.label_nats[i]), "p_value": float(scores.p_value[i])}
        if scores.removed[i]:
            asked = asdict(record.asked)
            entry["step"] = {"round": record.round, "goals": asked["goals"], "from": asked["parent"]}


def _channels(couplings: Couplings) -> dict[str, list[int]]:
    """Layer -> component of each output channel, -1 where it is pinned; inputs whose features may go."""
    inputs = {
        f"input {name.removeprefix(SELECTION)}": couplings.channel_maps[dims[0]].tolist()
        for name, dims in couplings.tensors.items()
        if is_selection(name) and dims[0] is not None
    }
    return inputs | {layer.name: couplings.channel_maps[layer.outputs].tolist() for layer in couplings.layers}


def _members(couplings: Couplings) -> dict[str, list[list[int] | None]]:
    """State tensor -> for each dimension the component of each index (None where none is free)."""
    return {
        name: [None if e is None else couplings.channel_maps[e].tolist() for e in dims]
        for name, dims in couplings.tensors.items()
    }
