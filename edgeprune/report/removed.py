"""From removed.json of a finished run to the entry that `report.render_explanation` prints.

What a run did not record is left out of the entry, never filled in.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from edgeprune.errors import RunError
from edgeprune.records.report import PinnedChannels
from edgeprune.records.schema import Range, read_json

LOSSLESS = "it carried nothing of its own (unused, constant or a double), so no output changed"
COUPLED = 24  # entries; a component of a wide network can touch hundreds of tensors
KINDS = {"macs": "MACs", "params": "parameters", "ms": "latency"}
EVIDENCE = ("criterion", "estimator", "samples", "p_value", "label_nats", "rank", "of", "random")
GIVE = "give the folder that `edgeprune compress` wrote"


@dataclass(frozen=True)
class Step:
    """The round that took a component, and its goals as shares of the dense network."""

    round: Annotated[int, Range(0)]
    goals: dict[str, Annotated[float, Range(0, 10)]]


@dataclass(frozen=True)
class RemovedComponent:
    """What became of a component; evidence that was not taken is None."""

    removed: bool
    group: str
    score: float | None = None
    unit: str = "nats"
    criterion: str | None = None
    estimator: str | None = None
    samples: Annotated[int, Range(0)] | None = None
    p_value: Annotated[float, Range(0, 1)] | None = None
    label_nats: float | None = None
    rank: Annotated[int, Range(1)] | None = None
    of: Annotated[int, Range(1)] | None = None
    random: dict[str, float | None] | None = None
    reason: str | None = None
    step: Step | None = None


@dataclass(frozen=True)
class Removals:
    """removed.json: components of each layer's channels and of each tensor's indices, -1 where pinned."""

    schema: Literal[1]
    channels: dict[str, tuple[int, ...]]
    members: dict[str, tuple[tuple[int, ...] | None, ...]]
    components: tuple[RemovedComponent, ...]


@dataclass(frozen=True)
class _Pins:
    pinned: tuple[PinnedChannels, ...] = ()


def read_removals(run: Path) -> Removals:
    """removed.json of a finished run.

    Raises:
        RunError: it is missing or damaged.
    """
    path = run / "removed.json"
    record = read_json(Removals, path, tip=GIVE)
    lists = [*record.channels.items(), *((n, d) for n, dims in record.members.items() for d in dims if d)]
    for name, components in lists:
        if any(not -1 <= c < len(record.components) for c in components):
            raise RunError(f"{path}: {name}: names a component that is not there", tip=GIVE)
    return record


def layers(run: Path) -> list[dict[str, Any]]:
    """Name (`layer`) and channels `before` and `after` of every layer.

    Raises:
        RunError: as `read_removals`.
    """
    record = read_removals(run)
    return [
        {
            "layer": name,
            "before": len(components),
            "after": sum(c < 0 or not record.components[c].removed for c in components),
        }
        for name, components in record.channels.items()
    ]


def explanation(run: Path, wanted: str) -> dict[str, Any]:
    """The entry of a layer ("features.3") or of one of its channels ("features.3:17").

    Raises:
        RunError: no finished run, or no such layer or channel; the nearest names are offered.
    """
    record = read_removals(run)
    name, channel = _find(wanted, record.channels, run)
    if channel is not None:
        return _channel(record, run, name, channel)
    entries = [_channel(record, run, name, i, brief=True) for i in range(len(record.channels[name]))]
    kept = sum(not e["removed"] for e in entries)
    return {"layer": name, "before": len(entries), "after": kept, "channels": entries}


def _find(wanted: str, channels: dict[str, tuple[int, ...]], run: Path) -> tuple[str, int | None]:
    if wanted in channels:
        return wanted, None
    name, colon, number = wanted.rpartition(":")
    if not colon:
        raise _unknown(wanted, channels, run)
    if name not in channels:
        raise _unknown(name, channels, run)
    last = len(channels[name]) - 1
    if not number.isdecimal() or int(number) > last:
        raise RunError(f"{wanted}: {name} has channels 0..{last}", tip=f"for example {name}:{last}")
    return name, int(number)


def _unknown(name: str, channels: dict[str, tuple[int, ...]], run: Path) -> RunError:
    near = difflib.get_close_matches(name, channels, 3, cutoff=0.3) or list(channels)[:3]
    return RunError(
        f"{run}: has no layer {name!r}; its {len(channels)} layers are listed in report.json",
        tip=f"did you mean {' or '.join(near)}?" if near else "",
    )


def _channel(record: Removals, run: Path, name: str, channel: int, *, brief: bool = False) -> dict[str, Any]:
    number = record.channels[name][channel]
    entry: dict[str, Any] = {"layer": name, "channel": channel}
    if number < 0:
        return entry | {"removed": False, "reason": _pinned(run), "step": None, "coupled": []}
    component = record.components[number]
    entry |= {"removed": component.removed, "group": component.group}
    if component.score is not None:
        entry |= {"score": component.score, "unit": component.unit}
        if component.unit == "nats":
            entry["score_nats"] = component.score
    evidence = {key: getattr(component, key) for key in EVIDENCE}
    entry |= {key: value for key, value in evidence.items() if value is not None}
    step = component.step
    if step is not None:
        goals = [f"{share:.1%} of the dense {KINDS.get(k, k)}" for k, share in step.goals.items()]
        entry["step"] = {"index": step.round, "budget": " and ".join(goals)}
    elif not component.removed:
        entry["step"] = None
    else:
        entry |= {"reason": component.reason or LOSSLESS, "step": None}
    if not brief:
        entry["coupled"] = _coupled(record, number)
    return entry


def _coupled(record: Removals, component: int) -> list[dict[str, Any]]:
    """Every tensor index of a component; of tensors with several dimensions the dimension is named."""
    entries = []
    for tensor, dims in record.members.items():
        for d, components in enumerate(dims):
            at = [i for i, c in enumerate(components or ()) if c == component]
            if at:
                entries.append({"name": f"{tensor} dim {d}" if len(dims) > 1 else tensor, "indices": at})
    return entries[:COUPLED]


def _pinned(run: Path) -> str:
    """Why channels of this model are pinned, as far as the run recorded it."""
    reasons = [pin.reason for pin in read_json(_Pins, run / "report.json", tip=GIVE).pinned]
    if len(reasons) == 1:
        return f"pinned: {reasons[0]}"
    return f"pinned, for one of: {'; '.join(reasons)}" if reasons else "pinned"
