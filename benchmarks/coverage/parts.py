"""A row of a model that exports only in parts: detectors with post-processing by the data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.coverage.measure import LIMIT, SAMPLES, SPREAD, TARGET, enliven, measure_trace
from benchmarks.coverage.models import Row
from edgeprune.coupling.analysis import analyse
from edgeprune.graph.parts import Part, exportable_parts, put_back
from edgeprune.search.groups import uniform


def joint_target(parts: list[Part]) -> float:
    """The share of MACs that every part is asked for so that all together come to half.

    A part whose boundary holds it whole (one convolution between two boundaries) gives nothing:
    the others give more.
    """
    known, stuck = [], 0.0
    for part in parts:
        couplings = analyse(part.trace)
        rank = np.random.default_rng(0).permutation(couplings.count)
        if couplings.count:
            known.append((part.rows, couplings, rank))
        else:
            stuck += part.rows * couplings.macs()

    def left(share: float) -> float:
        cuts = ((r, c, uniform(c, rank, c.macs, share * c.macs())) for r, c, rank in known)
        return stuck + sum(r * c.macs(removed) for r, c, removed in cuts)

    full = left(1.0)
    low, high = 0.02, TARGET
    if left(high) <= LIMIT * full:
        return high
    for _ in range(6):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) <= TARGET * full else (low, middle)
    return low


def joint_share(rows: Iterable[dict[str, Any]]) -> float:
    """Free channels over all channels of the parts; the least of the shares would be that of a box head."""
    known = [(r["free_share"], r["channels"]) for r in rows]
    return round(sum(s * n for s, n in known) / max(1, sum(n for _, n in known)), 4)


def measure_parts(model: nn.Module, row: Row) -> dict[str, Any]:
    """Every part to half, each file compared with its graph; then all put back and the model run."""
    images = list(row.inputs(SAMPLES))
    enliven(model, (images,))
    parts, missed = exportable_parts(model, lambda m: m(images))
    rows: dict[str, dict[str, Any]] = {}
    before = after = parameters = kept = 0.0
    target = joint_target(parts)
    for part in parts:
        given = tuple(torch.utils._pytree.tree_leaves(part.inputs))
        measured, small = measure_trace(part.trace, given, target=target)
        measured["rows"] = part.rows
        rows[part.path] = measured
        before += part.rows * measured["mmacs"]
        after += part.rows * measured["mmacs"] * (measured["macs_ratio"] or 1.0)
        parameters += measured["parameters"]
        kept += measured["parameters"] * measured["params_ratio"]
        put_back(model, part.path, small.graph)
    with torch.no_grad():
        found = model(images)
    worst = min((r["spread_ratio"] or 0.0 for r in rows.values()), default=0.0)
    return {
        "components": sum(r["components"] for r in rows.values()),
        "channels": sum(r["channels"] for r in rows.values()),
        "free_share": joint_share(rows.values()),
        "recentred": any(r["recentred"] for r in rows.values()),
        "dynamic_batch": all(r["dynamic_batch"] for r in rows.values()),
        "mmacs": round(before / SAMPLES, 2),
        "macs_ratio": round(after / before, 4) if before else None,
        "params_ratio": round(kept / max(1.0, parameters), 4),
        "parity_max_abs": max((r["parity_max_abs"] for r in rows.values()), default=None),
        "spread_ratio": worst,
        "parts": rows,
        "missed": missed,
        "runs_put_back": len(found) == SAMPLES,
        "seconds": {
            k: round(sum(r["seconds"].get(k, 0.0) for r in rows.values()), 2)
            for k in ("trace", "coupling", "surgery", "export")
        },
        "passed": bool(before and after / before <= LIMIT and worst >= SPREAD and not missed),
    }
