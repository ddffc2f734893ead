"""removed.json: what became of every channel of the dense network, and the evidence for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.components import Couplings
from edgeprune.graph.features import SELECTION, is_selection
from edgeprune.search.state import SearchState
from edgeprune.session.dense import Prepared
from edgeprune.store import RunFolder


def removed_channels(
    prepared: Prepared, final: SearchState, tried: list[SearchState], folder: RunFolder
) -> dict[str, Any]:
    """Content of removed.json: per component its channels, fate, score and evidence."""
    couplings = prepared.couplings
    entries: list[dict[str, Any]] = [
        {
            "component": c,
            "removed": bool(final.removed[c]),
            "group": couplings.group_names[couplings.group[c]],
        }
        for c in range(couplings.count)
    ]
    accepted = _lineage(final, tried)
    for state in accepted:
        arrays = folder.arrays(f"rounds/{state.record['round']}")
        _enter(entries, state, state.scored, arrays, couplings)
    return {
        "schema": 1,
        "channels": _channels(couplings),
        "members": _members(couplings),
        "components": entries,
    }


def _lineage(final: SearchState, tried: list[SearchState]) -> list[SearchState]:
    """The accepted rounds, first to last."""
    path: list[SearchState] = []
    wanted = final.record.get("round", 0)
    by_number = {s.record["round"]: s for s in tried}
    while wanted:
        path.insert(0, by_number[wanted])
        wanted = by_number[wanted].record["asked"]["from"]
    return path


def _enter(
    entries: list[dict[str, Any]],
    state: SearchState,
    origin: npt.NDArray[np.int64],
    arrays: dict[str, npt.NDArray[Any]],
    couplings: Couplings,
) -> None:
    record = state.record
    groups = couplings.group[origin]
    for i, dense in enumerate(origin):
        peers = arrays["score"][groups == groups[i]]
        entry = entries[int(dense)]
        entry |= {
            "criterion": record["criterion"],
            "score": float(arrays["score"][i]),
            "unit": record["unit"],
            "estimator": record["estimator"],
            "samples": record["samples"],
            "rank": int(arrays["rank"][i]) + 1,
            "of": len(peers),
            "random": {
                "value": float(peers.mean()),
                "low": float(np.quantile(peers, 0.05)),
                "high": float(np.quantile(peers, 0.95)),
            },
        }
        if "p_value" in arrays:
            entry |= {
                "label_nats": float(arrays["label_nats"][i]),
                "p_value": float(arrays["p_value"][i]),
            }
        if arrays["now"][i]:
            entry["step"] = {"round": record["round"], **record["asked"]}


def _channels(couplings: Couplings) -> dict[str, list[int]]:
    """Layer -> component of each output channel, -1 where it is pinned; inputs whose features may go."""
    inputs = {
        f"input {name.removeprefix(SELECTION)}": couplings.channel_maps[dims[0]].tolist()
        for name, dims in couplings.tensors.items()
        if is_selection(name) and dims[0] is not None
    }
    return inputs | {
        (layer.weight or layer.node).removesuffix(".weight"): couplings.channel_maps[layer.outputs].tolist()
        for layer in couplings.layers
    }


def _members(couplings: Couplings) -> dict[str, list[list[int] | None]]:
    """State tensor -> for each dimension the component of each index (None where none is free)."""
    return {
        name: [None if e is None else couplings.channel_maps[e].tolist() for e in dims]
        for name, dims in couplings.tensors.items()
    }
