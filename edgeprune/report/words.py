"""Numbers and verdicts in words; the one place that decides what may be called faster.

Guarantee: "faster" is said only of a measured ratio whose whole interval lies below 1, and milliseconds
are given only for what was timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SpeedChange:
    """`kind` is faster, not faster, slower, elsewhere (measured on another machine than the target),
    estimate or unknown; `detail` is the interval or a caveat."""

    kind: str
    headline: str
    detail: str = ""

    @property
    def text(self) -> str:
        """Both in one phrase."""
        if not self.detail:
            return self.headline
        return f"{self.headline} ({self.detail})"


def speed(latency: Mapping[str, Any] | None) -> SpeedChange:
    """What the latency entry of a report allows to be said. The ratio in it is shipped / dense."""
    if latency is None:
        return SpeedChange("unknown", "not measured")
    ratio, low, high = latency["ratio"], latency["ratio_low"], latency["ratio_high"]
    if latency["basis"] == "emulated":
        return SpeedChange("estimate", f"{ratio:.2f} of the dense instructions", "emulated; not a time")
    if latency["basis"] == "estimate":
        return SpeedChange("estimate", f"about {ratio:.2f} of the dense time", "estimated, not measured")
    if high < 1:
        change = SpeedChange("faster", f"{_fold(ratio)} faster", f"{1 / high:.2f} to {1 / low:.2f}")
    else:
        kind = "slower" if low > 1 else "not faster"
        change = SpeedChange(kind, kind, f"{ratio:.2f} of the dense time, {low:.2f} to {high:.2f}")
    if latency.get("on_target", True):
        return change
    return SpeedChange("elsewhere", f"{change.headline} on {latency['where']}, not the target", change.detail)


def estimate(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    """Of a target that was not timed: dense, shipped, and what these numbers are."""
    change = fewer(entry["dense"], entry["shipped"], "less")
    return _three(entry["dense"]), _three(entry["shipped"]), f"{entry['unit']}, not measured: {change}"


def asked(report: Mapping[str, Any]) -> str:
    """The budget in words, and what it was judged by: one sentence for the head of the page."""
    accuracy, budget = report["accuracy"], report["budget"]
    unit = "points" if accuracy is None else loss_unit(accuracy)
    forms: dict[str, Callable[[float], str]] = {
        "max_drop": lambda v: f"at most {v:g} {unit} lost",
        "macs": lambda v: f"{100 * v:.3g}% of the MACs",
        "params": lambda v: f"{100 * v:.3g}% of the parameters",
        "target_ms": lambda v: f"a median latency of {v:g} ms",
        "deadline_ms": lambda v: f"a 99th percentile of {v:g} ms",
        "speedup": lambda v: f"{v:g} times as fast",
        "size_mb": lambda v: f"a file of {v:g} MB",
    }
    parts = [form(budget[key]) for key, form in forms.items() if isinstance(budget.get(key), int | float)]
    text = f"Asked for: {', '.join(parts) or 'no budget'}"
    if accuracy is None:
        return f"{text}; no data was given, so no loss was measured"
    return f"{text}; judged by {accuracy['measured_as']} on {accuracy['samples']} test samples"


def loss(accuracy: Mapping[str, Any]) -> str:
    """What was lost from dense to shipped in its unit, with the paired interval if there is one."""
    drop, unit = accuracy.get("drop"), loss_unit(accuracy)
    if drop:
        lost = drop["value"]
    elif unit == "points":
        lost = 100 * (accuracy["dense"]["value"] - accuracy["shipped"]["value"])
    else:
        lost = 100 * (accuracy["shipped"]["value"] / max(accuracy["dense"]["value"], 1e-30) - 1)
    if abs(lost) < 0.005:
        text = f"no {unit} lost"
    else:
        text = f"{abs(lost):.2f} {unit} {'lost' if lost > 0 else 'gained'}"
    if drop:
        text += f" (loss {_signed(drop['low'])} to {_signed(drop['high'])})"
    return text


def loss_unit(accuracy: Mapping[str, Any]) -> str:
    """The unit of a loss: points of a share, or percent of the dense model's error."""
    return str(accuracy.get("unit", "points"))


def measure_value(accuracy: Mapping[str, Any], value: float) -> str:
    """A value of the measure: a share as per cent, an error in the targets' unit."""
    return share(value) if loss_unit(accuracy) == "points" else f"{value:.4g}"


def origin(accuracy: Mapping[str, Any]) -> str:
    """Where the test samples come from, and what that means for the measure; empty if not recorded."""
    where = accuracy.get("test_origin")
    if not where:
        return ""
    if str(where).startswith("held out"):
        return f"test part {where} from the given data: the dense model may have been trained on it"
    return f"test part: {where}"


def share(value: float) -> str:
    """A share in 0..1 as per cent."""
    return f"{100 * value:.2f}%"


def span(interval: Mapping[str, Any]) -> str:
    """A share with its interval."""
    return f"{share(interval['value'])} ({100 * interval['low']:.2f} to {100 * interval['high']:.2f})"


def short_count(value: float) -> str:
    """1234567 → 1.23 M."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{_three(value / limit)} {unit}"
    return f"{value:g}"


def size(value: float) -> str:
    """Bytes, in decimal units as files are sold and listed."""
    return f"{short_count(value)}B" if value >= 1e3 else f"{value:g} B"


def milliseconds(value: float) -> str:
    """A duration in ms with three digits."""
    return f"{_three(value)} ms"


def duration(seconds: float) -> str:
    """0.42 s, 12.3 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{_three(seconds)} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


def fewer(dense: float, shipped: float, word: str) -> str:
    """3.10× fewer; or says that there are not."""
    if dense <= 0 or shipped <= 0:
        return ""
    if dense / shipped >= 1.005:
        return f"{_fold(shipped / dense)} {word}"
    return "unchanged" if shipped / dense < 1.005 else f"{_fold(dense / shipped)} more"


def settings(latency: Mapping[str, Any]) -> str:
    """Threads and batch of a latency entry; empty where neither is recorded."""
    parts = []
    if latency.get("threads"):
        parts.append(f"{latency['threads']} thread{'s' if latency['threads'] > 1 else ''}")
    if latency.get("batch"):
        parts.append(f"batch {latency['batch']}")
    return ", ".join(parts)


def steps(accuracy: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The accuracy steps that were measured, in order."""
    names = ("dense", "pruned", "compensated", "shipped")
    return [(n, accuracy[n]) for n in names if accuracy.get(n) is not None]


def measure_label(accuracy: Mapping[str, Any]) -> str:
    """What the accuracy row is called: the measure."""
    return str(accuracy["measured_as"])


def kept_inputs_line(entry: Mapping[str, Any]) -> str:
    """Which features of an input are read, as ranges; what a sensor need not measure is not in it."""
    kept, name = entry["kept"], entry["input"]
    if len(kept) == entry["count"]:
        return f"input {name}: all {len(kept)} features are read"
    numbers = ranges(kept)
    return f"input {name}: {len(kept)} of {entry['count']} features are read ({entry['of']}): {numbers}"


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as 0–3, 7, 9–11."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in parts)


def _fold(ratio: float) -> str:
    return f"{1 / ratio:.2f}×" if ratio > 0 else "∞×"


def _three(value: float) -> str:
    if value >= 1e5:
        return short_count(value)
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3g}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
