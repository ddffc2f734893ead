"""From removed.json of a finished run to the entry that `report.render_explanation` prints.

What a run did not record is left out of the entry, never filled in.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from edgeprune.errors import RunError
from edgeprune.store import read_record

LOSSLESS = "it carried nothing of its own (unused, constant or a double), so no output changed"
COUPLED = 24  # entries; a component of a wide network can touch hundreds of tensors

KINDS = {"macs": "MACs", "params": "parameters", "ms": "latency"}


def explanation(run: Path, wanted: str) -> dict[str, Any]:
    """The entry of a layer ("features.3") or of one of its channels ("features.3:17").

    Raises:
        RunError: no finished run, or no such layer or channel; the nearest names are offered.
    """
    record = read_record(run / "removed.json")
    try:
        channels = record["channels"]
        name, channel = _find(wanted, channels, run)
        if channel is not None:
            return _channel(record, run, name, channel)
        entries = [_channel(record, run, name, i, brief=True) for i in range(len(channels[name]))]
        kept = sum(not e["removed"] for e in entries)
        return {"layer": name, "before": len(entries), "after": kept, "channels": entries}
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise RunError(
            f"{run / 'removed.json'}: is not what compress writes ({type(error).__name__}: {error})",
            tip="run compress again with --force",
        ) from error


def layers(run: Path) -> list[dict[str, Any]]:
    """Every layer of a finished run with its output channels before and after.

    Raises:
        RunError: no finished run.
    """
    record = read_record(run / "removed.json")
    try:
        gone = {entry["component"] for entry in record["components"] if entry["removed"]}
        return [
            {"layer": name, "before": len(units), "after": sum(u not in gone for u in units)}
            for name, units in record["channels"].items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{run / 'removed.json'}: is not what compress writes ({type(error).__name__}: {error})",
            tip="run compress again with --force",
        ) from error


def _find(wanted: str, channels: dict[str, list[int]], run: Path) -> tuple[str, int | None]:
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


def _unknown(name: str, channels: dict[str, list[int]], run: Path) -> RunError:
    near = difflib.get_close_matches(name, channels, 3, cutoff=0.3) or list(channels)[:3]
    return RunError(
        f"{run}: has no layer {name!r}; its {len(channels)} layers are listed in report.json",
        tip=f"did you mean {' or '.join(near)}?" if near else "",
    )


def _channel(
    record: dict[str, Any], run: Path, name: str, channel: int, *, brief: bool = False
) -> dict[str, Any]:
    component = record["channels"][name][channel]
    if component < 0:
        entry: dict[str, Any] = {"layer": name, "channel": channel, "removed": False}
        return {**entry, "reason": _pinned(run), "step": None, "coupled": []}
    found = record["components"][component]
    entry = {"layer": name, "channel": channel, "removed": found["removed"], "group": found["group"]}
    if "score" in found:
        entry |= {"score": found["score"], "unit": found["unit"]}
        if found["unit"] == "nats":
            entry["score_nats"] = found["score"]
    keys = ("criterion", "estimator", "samples", "p_value", "label_nats", "rank", "of", "random")
    entry |= {key: found[key] for key in keys if key in found}
    step = found.get("step")
    if step:
        goals = " and ".join(f"{share:.1%} of the dense {KINDS[k]}" for k, share in step["goals"].items())
        entry["step"] = {"index": step["round"], "budget": goals}
    elif not found["removed"]:
        entry["step"] = None
    else:
        entry |= {"reason": found.get("reason", LOSSLESS), "step": None}
    if not brief:
        entry["coupled"] = _coupled(record["members"], component)
    return entry


def _coupled(members: dict[str, Any], component: int) -> list[dict[str, Any]]:
    """Every tensor index of a component; of tensors with several dimensions the dimension is named."""
    found = []
    for tensor, dims in members.items():
        for d, units in enumerate(dims):
            at = [i for i, c in enumerate(units or ()) if c == component]
            if at:
                found.append({"name": f"{tensor} dim {d}" if len(dims) > 1 else tensor, "indices": at})
    return found[:COUPLED]


def _pinned(run: Path) -> str:
    """Why channels of this model are pinned, as far as the run recorded it."""
    reasons = [p["reason"] for p in read_record(run / "report.json").get("pinned", [])]
    if len(reasons) == 1:
        return f"pinned: {reasons[0]}"
    return f"pinned, for one of: {'; '.join(reasons)}" if reasons else "pinned"
