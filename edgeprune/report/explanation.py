"""Why a channel was removed or kept, in words, from an entry of removed.json.

An entry of a channel:
    layer, channel, removed             "features.3", 17, true
    criterion, score_nats               null where a lossless rule needed no score
    score, unit                         instead of score_nats, by a criterion that does not score in nats
    estimator, samples                  how the score was estimated and on how many samples
    p_value or interval                 {low, high, level}; either may be missing
    rank, of                            1 is the first to go
    random                              {value, low, high}: what chance would have lost, in the score's unit
    coupled                             [{name, indices}]: what could only be removed together
    step                                {index, of, budget, macs_saved}: the budget step that took it
    reason                              of a lossless removal, or why it is pinned
An entry of a layer: layer, before, after, channels (a list of the above).
What an entry does not hold is said to be not recorded; nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.report import words

UNKNOWN = "not recorded"


def render_explanation(entry: Mapping[str, Any]) -> str:
    """The text that `edgeprune explain RUN LAYER[:CHANNEL]` prints."""
    return _layer(entry) if "channels" in entry else _channel(entry)


def _channel(entry: Mapping[str, Any]) -> str:
    fate = "removed" if entry.get("removed") else "kept"
    head = f"{entry['layer']}:{entry['channel']} was {fate}"
    if entry.get("reason"):
        head += f": {entry['reason']}"
    rows = [
        ("score", _score(entry)),
        ("estimator", _estimator(entry)),
        ("evidence", _evidence(entry)),
        ("random choice", _random(entry)),
        ("coupled with", _coupled(entry.get("coupled"))),
        ("budget step", _step(entry["step"]) if "step" in entry else UNKNOWN),
    ]
    return "\n".join([head, *(f"  {name.ljust(13)}  {text}" for name, text in rows)])


def _layer(entry: Mapping[str, Any]) -> str:
    channels: Sequence[Mapping[str, Any]] = entry["channels"]
    removed = [c for c in channels if c.get("removed")]
    head = f"{entry['layer']}: {entry.get('before', UNKNOWN)} → {entry.get('after', UNKNOWN)} channels"
    rows = [("channel", "fate", "score", "step")]
    # Scored channels from the first to go to the last; those without a score, which went losslessly, lead.
    for c in sorted(channels, key=lambda c: (_value(c)[0] is not None, _value(c)[0] or 0.0)):
        step = (c.get("step") or {}).get("index")
        rows.append(
            (
                str(c["channel"]),
                "removed" if c.get("removed") else "kept",
                _amount(*_value(c)),
                c.get("reason") or ("" if step is None else str(step)),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        "  " + "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    ]
    tail = f"{len(removed)} removed; `edgeprune explain RUN {entry['layer']}:CHANNEL` tells of one."
    return "\n".join([head, *lines, tail])


def _score(entry: Mapping[str, Any]) -> str:
    value, unit = _value(entry)
    if value is None:
        return "none needed" if entry.get("reason") else UNKNOWN
    text = _amount(value, unit)
    if entry.get("criterion"):
        text += f" by {entry['criterion']}"
    if entry.get("rank") is not None and entry.get("of") is not None:
        text += f", {_ordinal(entry['rank'])} lowest of {entry['of']} in its layer"
    return text


def _estimator(entry: Mapping[str, Any]) -> str:
    estimator, samples = entry.get("estimator"), entry.get("samples")
    if estimator is None and samples is None:
        return UNKNOWN
    return (
        f"{estimator or UNKNOWN} on {f'{samples} samples' if samples is not None else 'an unrecorded sample'}"
    )


def _evidence(entry: Mapping[str, Any]) -> str:
    parts = []
    if entry.get("p_value") is not None:
        parts.append(f"p = {entry['p_value']:.3g} for no information at all")
    interval = entry.get("interval")
    if interval:
        level = 100 * interval.get("level", 0.95)
        parts.append(f"{level:g}% interval {interval['low']:.4g} to {interval['high']:.4g} nats")
    return "; ".join(parts) or UNKNOWN


def _random(entry: Mapping[str, Any]) -> str:
    random = entry.get("random")
    if not random:
        return UNKNOWN
    score, unit = _value(entry)
    if random.get("value") is None:
        return UNKNOWN
    text = f"would have lost {_amount(random['value'], unit)}"
    if random.get("low") is not None and random.get("high") is not None:
        text += f" ({random['low']:.4g} to {random['high']:.4g})"
    if score is None or not entry.get("removed"):
        return text
    if random.get("low") is not None and score < random["low"]:
        return f"{text}: this channel is clearly cheaper"
    return f"{text}: this channel is {'cheaper' if score < random['value'] else 'no cheaper'}"


def _coupled(coupled: Any) -> str:
    if coupled is None:
        return UNKNOWN
    if not coupled:
        return "nothing else"
    parts = [
        c if isinstance(c, str) else f"{c['name']}[{', '.join(map(str, c.get('indices', [])))}]"
        for c in coupled
    ]
    shown = parts[:8]
    more = f" and {len(parts) - len(shown)} more" if len(parts) > len(shown) else ""
    return " — ".join(shown) + more


def _step(step: Mapping[str, Any] | None) -> str:
    if not step:
        return "none"
    text = f"step {step.get('index', UNKNOWN)}"
    if step.get("of") is not None:
        text += f" of {step['of']}"
    if step.get("budget"):
        text += f", for {step['budget']}"
    if step.get("macs_saved") is not None:
        text += f"; it saved {words.short_count(step['macs_saved'])} MACs"
    return text


def _value(entry: Mapping[str, Any]) -> tuple[float | None, str]:
    """The score and its unit; a unit of "1" is a plain number."""
    if entry.get("score_nats") is not None:
        return entry["score_nats"], "nats"
    unit = str(entry.get("unit", "nats"))
    return entry.get("score"), "" if unit == "1" else unit


def _amount(value: float | None, unit: str = "nats") -> str:
    return "–" if value is None else f"{value:.4g} {unit}".rstrip()


def _ordinal(n: int) -> str:
    if n % 100 in (11, 12, 13):
        return f"{n}th"
    return f"{n}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th') }"
