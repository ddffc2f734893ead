"""What the page says of single samples, classes and channels: who lost, and why channels went.

Guarantee: only what the run recorded at proof time is shown; a picture is shown only where its text is
base64. Elsewhere: recording it (pareto.changes, report.removals).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from edgeprune.report import words
from edgeprune.report.markup import table

BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def changed_samples(changes: Mapping[str, Any] | None) -> str:
    """Test samples that got worse, and the classes that lost most."""
    if not changes:
        return ""
    worse, better, samples = (changes[k] for k in ("worse", "better", "samples"))
    if not worse:
        return f"<p>None of the {samples} test samples got worse.</p>"
    if changes["decisions"]:
        labelled = any(e["target"] for e in changes.get("examples", ()))
        text = (
            f"{worse} of {samples} test samples changed from right to wrong, {better} from wrong to right."
            if labelled
            else f"{worse} of {samples} test samples are decided in another way than by the dense model."
        )
    else:
        text = f"Of {samples} test samples {worse} got worse and {better} better by {changes['measure']}."
    return f"<p>{escape(text)}</p>{_examples(changes)}{_classes(changes.get('classes', ()))}"


def _examples(changes: Mapping[str, Any]) -> str:
    examples: Sequence[Mapping[str, Any]] = changes.get("examples", ())
    if any(BASE64.fullmatch(e.get("thumbnail", "")) for e in examples):
        return f"<ul class=samples>{''.join(_card(e) for e in examples)}</ul>"
    what = "decided" if changes["decisions"] else changes["measure"]
    head = ["sample", f"dense {what}", f"shipped {what}"]
    labelled = any(e["target"] for e in examples)
    rows = [
        [str(e["sample"]), e["dense"], e["shipped"], *([e["target"]] if labelled else [])] for e in examples
    ]
    caption = "Samples that changed from right to wrong" if labelled else "Samples that lost most"
    return table(caption, [*head, *(["true"] if labelled else [])], rows)


def _card(example: Mapping[str, Any]) -> str:
    picture = ""
    if BASE64.fullmatch(example.get("thumbnail", "")):
        source = f"data:image/png;base64,{example['thumbnail']}"
        picture = f'<img src="{source}" alt="sample {example["sample"]}" width=64 height=64>'
    lines = [("true", example["target"]), ("dense", example["dense"]), ("shipped", example["shipped"])]
    text = "".join(f"<span><b>{name}</b> {escape(value)}</span>" for name, value in lines if value)
    return f"<li>{picture}<div><span class=soft>sample {example['sample']}</span>{text}</div></li>"


def _classes(classes: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            c["name"], str(c["samples"]), words.share(c["dense"]), words.share(c["shipped"]),
            f"{100 * (c['dense'] - c['shipped']):.2f} points",
        )
        for c in classes
    ]  # fmt: skip
    return (
        table("Classes that lost most", ("class", "samples", "dense", "shipped", "lost"), rows)
        if rows
        else ""
    )


def first_channels(first: Sequence[Mapping[str, Any]], criterion: str) -> str:
    """The channels that went first: their score, their rank and what a random choice would have taken."""
    if not first:
        return ""
    rows = [
        (
            f"{x['layer']}:{x['channel']}", _amount(x["score"], x["unit"]), f"{x['rank']} of {x['of']}",
            _amount(x["random"], x["unit"]), "–" if x.get("p_value") is None else f"{x['p_value']:.2g}",
        )
        for x in first
    ]  # fmt: skip
    evidence = any(x.get("p_value") is not None for x in first)
    head = ("channel", f"score by {criterion}", "rank", "mean of its group", "p of no information")
    cut = len(head) if evidence else len(head) - 1
    text = (
        "The channels with the lowest score went first, group by group. A random choice would have lost the"
        " mean of its group on average."
    )
    return f"<p>{text}</p>" + table("The first channel of each group", head[:cut], [r[:cut] for r in rows])


def preprocessing(how: Mapping[str, Any]) -> str:
    """What must be done to a raw sample before the file reads it."""
    inputs = how.get("inputs") if isinstance(how.get("inputs"), list) else [how]
    parts = []
    for number, entry in enumerate(inputs or ()):
        rows = [(str(k), _plain(v)) for k, v in entry.items() if v is not None]
        if rows:
            name = "" if len(inputs or ()) == 1 else f" of input {number}"
            parts.append(table(f"From a raw sample to the file’s input{name}", ("step", "value"), rows))
    return "".join(parts)


def _amount(value: float, unit: str) -> str:
    return f"{value:.3g}{'' if unit == '1' else f' {unit}'}"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return (
            " × ".join(map(_plain, value))
            if all(isinstance(v, int) for v in value)
            else ", ".join(map(_plain, value))
        )
    return f"{value:.6g}" if isinstance(value, float) else str(value)
