"""Why a file is not as fast as its multiply-adds promise: layer by layer, with causes in words.

    why(BenchRequest((dense, shipped)), report).causes      the costliest first

A layer's lost time is what it takes above its former time scaled by its multiply-adds. A cause is named
where the measurements show it: the layer did not shrink (the run's report says why), its width falls off
the measured staircase, its operators move memory at the speed of a copy, they are so short that starting
them dominates, or values are converted between layouts and types.
Guarantee: every number was measured here in one run; a cause that nothing supports is not guessed.
Elsewhere: the profile itself (measure/operators.py), ratios of whole files with intervals (measure/host.py).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import BenchError
from edgeprune.measure.operators import layer_times, profile_operators
from edgeprune.measure.request import BenchRequest
from edgeprune.measure.staircase import BLOCKS, TOLERANCE, Staircase, staircase
from edgeprune.records import FileProfile, LayerChange, LayerSize, OperatorProfile, WhyResult

CONVERSIONS = (
    "QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput", "Transpose", "Cast",
)  # fmt: skip
SHARE = 0.03  # of the file's time: less is not worth a sentence
UNCHANGED = 0.95  # of its multiply-adds: a layer that kept this much did not shrink
MOSTLY = 0.5  # of an operator's time
MOST_CAUSES = 12


def why(
    request: BenchRequest, report: Mapping[str, Any] | None = None, *, steps: Staircase | None = None
) -> WhyResult:
    """Compare two ONNX files, the second with the first, operator by operator on this machine.

    Args:
        report: the run's report.json as a mapping, for the reasons of layers that kept their width;
            `run_report` finds it beside a file.
        steps: the width staircase of this machine; measured (and kept) where it is needed and missing.

    Raises:
        BenchError: as `profile_operators`, or the request does not have two files.
    """
    if len(request.models) != 2:
        raise BenchError(f"two files are compared; {len(request.models)} were given", tip="give two")
    profile = profile_operators(request)
    if steps is None and any(x.operator == "Conv" and x.width % max(BLOCKS) for x in profile.files[1].layers):
        steps = staircase(threads=request.threads)
    return compare_profiles(profile, report, steps)


def run_report(*files: Path) -> dict[str, Any] | None:
    """The report.json of the run folder that one of the files lies in, the last first; None without."""
    for file in reversed(files):
        try:
            report = json.loads((Path(file).parent / "report.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(report, dict) and "layers" in report:
            return report
    return None


def compare_profiles(
    profile: OperatorProfile, report: Mapping[str, Any] | None = None, steps: Staircase | None = None
) -> WhyResult:
    """Turn a profile of two files into the comparison; measures nothing."""
    first, second = profile.files[0], profile.files[1]
    pairs = _matched(first.layers, second.layers)
    times = layer_times(first), layer_times(second)
    bounds = _bounds(second, profile)
    reasons = _reasons(report)
    # Two forms of one network, without a run that should have shrunk it: equal widths are no finding.
    same = report is None and all(old and new and old.macs == new.macs for old, new in pairs)
    changes = []
    for old, new in pairs:
        size = new or old
        assert size is not None
        us = (times[0][old.name] if old else None, times[1][new.name] if new else None)
        lost = 0.0
        if old and new and us[0] is not None and us[1] is not None:
            lost = us[1] - us[0] * (new.macs / old.macs if old.macs else 1.0)
        note = "only in the first file" if new is None else "only in the second file" if old is None else ""
        if old and new and new.quantised and not old.quantised:
            note = "in 8 bits"
        elif old and new and not same and new.macs >= UNCHANGED * old.macs:
            note = "did not shrink" + (f": {reasons[new.name]}" if new.name in reasons else "")
        changes.append(
            LayerChange(
                name=size.name,
                operator=size.operator,
                us_before=us[0],
                us_after=us[1],
                macs_before=old.macs if old else None,
                macs_after=new.macs if new else None,
                inputs_before=old.inputs if old else None,
                inputs_after=new.inputs if new else None,
                width_before=old.width if old else None,
                width_after=new.width if new else None,
                misaligned=_misaligned(old, new, steps) if new else None,
                bound=bounds.get(size.name, "compute"),
                lost_us=lost,
                note=note,
            )
        )
    layers = tuple(changes)
    return WhyResult(profile, layers, _causes(profile, layers))


def _matched(
    first: Sequence[LayerSize], second: Sequence[LayerSize]
) -> list[tuple[LayerSize | None, LayerSize | None]]:
    """By name; what is left over by order, where both files have as many left of an operator."""
    known = {x.name: x for x in second}
    pairs: dict[str, LayerSize | None] = {x.name: known.get(x.name) for x in first}
    taken = {x.name for x in pairs.values() if x is not None}
    for operator in {x.operator for x in first}:
        alone = [x for x in first if x.operator == operator and pairs[x.name] is None]
        others = [x for x in second if x.operator == operator and x.name not in taken]
        if len(alone) == len(others):
            for a, b in zip(alone, others, strict=True):
                pairs[a.name] = b
                taken.add(b.name)
    rows: list[tuple[LayerSize | None, LayerSize | None]] = [(x, pairs[x.name]) for x in first]
    return rows + [(None, x) for x in second if x.name not in taken]


def _bounds(file: FileProfile, profile: OperatorProfile) -> dict[str, str]:
    """What the operators that compute or serve each layer mostly spend their time on."""
    total: dict[str, float] = {}
    memory: dict[str, float] = {}
    overhead: dict[str, float] = {}
    for row in file.operators:
        if row.serves is None:
            continue
        total[row.serves] = total.get(row.serves, 0.0) + row.us
        copying = row.bytes / _rate(profile.bandwidth, row.bytes) / 1e3
        memory[row.serves] = memory.get(row.serves, 0.0) + min(copying, row.us)
        overhead[row.serves] = overhead.get(row.serves, 0.0) + min(profile.overhead_us, row.us)
    bound_of = {}
    for name, us in total.items():
        worst = max((memory[name], "memory"), (overhead[name], "overhead"))
        bound_of[name] = worst[1] if worst[0] >= MOSTLY * us else "compute"
    return bound_of


def _rate(bandwidth: Sequence[tuple[int, float]], moved: int) -> float:
    """GB/s of a copy that moves at least this many bytes; bytes by GB/s are nanoseconds."""
    return next((rate for size, rate in bandwidth if size >= moved), bandwidth[-1][1])


def _misaligned(old: LayerSize | None, new: LayerSize, steps: Staircase | None) -> float | None:
    """Measured cost of a convolution's new width by that of the next whole block, of whichever size is worst.

    A width that the first file has too is no finding: nobody chose the 1 of a grey image. Widths that lie
    alike within a block stand for those that were not measured, as far as there are some at all: below a
    block the measured stacks, with as many inputs as outputs, stand for nothing.
    """
    if steps is None or new.operator != "Conv":
        return None
    changed = [new.width] if old is None or new.width != old.width else []
    changed += [new.inputs] if old is None or new.inputs != old.inputs else []
    worst = 1.0
    for width, block in itertools.product(changed, BLOCKS):
        for w in steps.relative:
            up = -(-w // block) * block
            if width > block and w % block and w % block == width % block and up in steps.relative:
                worst = max(worst, steps.relative[w][0] / steps.relative[up][0])
    return worst if worst > TOLERANCE else None


def _reasons(report: Mapping[str, Any] | None) -> dict[str, str]:
    """Layer → why it kept channels, from a run's report."""
    if report is None:
        return {}
    reasons: dict[str, str] = {}
    for row in report.get("layers", ()):
        if row["before"] == row["after"]:
            pins = [p for p in report.get("pinned", ()) if p["name"] == row["name"]]
            # Pins without a layer's name are matched by their number of channels, and said to be the run's.
            pins = pins or [
                p for p in report.get("pinned", ()) if not p["name"] and p["channels"] == row["before"]
            ]
            reasons[row["name"]] = "the plan kept all its channels"
            if pins:
                reasons[row["name"]] = f"the run pins {pins[0]['channels']} channels, {pins[0]['reason']}"
    return reasons


def _causes(profile: OperatorProfile, layers: Sequence[LayerChange]) -> tuple[str, ...]:
    first, second = profile.files
    total = second.total_us
    least = SHARE * total
    causes: list[tuple[float, str]] = []
    for row in layers:
        if row.us_after is None or row.us_before is None:
            continue
        if row.note.startswith("did not shrink") and row.us_after >= least:
            share = row.us_after / total
            causes.append((row.us_after, f"{row.name} {row.note}; it takes {share:.0%} of the time"))
        elif row.lost_us >= least:
            causes.append((row.lost_us, _sentence(row)))
    gained = _conversions(second) - _conversions(first)
    if gained >= least:
        kinds = sorted({o.operator for o in second.operators if o.operator in CONVERSIONS})
        causes.append((gained, f"conversions take {gained:.1f} µs more than before ({', '.join(kinds)})"))
    starting = len(second.operators) * profile.overhead_us
    if starting >= 0.1 * total:
        text = (
            f"starting {len(second.operators)} operators takes about {starting:.1f} of {total:.1f} µs,"
            " whatever their width"
        )
        causes.append((starting, text))
    if not causes:
        causes.append((0.0, f"no layer lost {SHARE:.0%} of the time against what its multiply-adds promise"))
    return tuple(text for _, text in sorted(causes, key=lambda c: -c[0])[:MOST_CAUSES])


def _sentence(row: LayerChange) -> str:
    """What a layer that lost time was seen to suffer from."""
    share = (row.macs_after or 0) / row.macs_before if row.macs_before else 1.0
    took = (row.us_after or 0.0) / row.us_before if row.us_before else 1.0
    head = f"{row.name} has {share:.0%} of its multiply-adds and takes {took:.0%} of its time"
    if row.misaligned is not None:
        wide = f"{row.inputs_after} → {row.width_after} channels"
        return f"{head}: {wide} fall off the runtime's blocks, {row.misaligned:.2f}× the next step's cost"
    if "8 bits" in row.note:
        return f"{head}: its 8-bit kernel and conversions are slower here than the float kernel"
    if row.bound == "memory":
        return f"{head}: it moves memory at the speed of a copy, which multiply-adds do not show"
    if row.bound == "overhead":
        return f"{head}: it is so short that starting its operators dominates"
    rates = [
        (macs or 0) / us / 1e3
        for macs, us in ((row.macs_before, row.us_before), (row.macs_after, row.us_after))
        if us
    ]
    return f"{head}: its kernel does {rates[1]:.1f} multiply-adds a nanosecond after {rates[0]:.1f}"


def _conversions(file: FileProfile) -> float:
    return sum(row.us for row in file.operators if row.operator in CONVERSIONS)
