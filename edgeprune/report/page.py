"""The report as one HTML file: no script, no network, readable on a phone, light and dark.

Guarantee: everything that came from outside (names, reasons, paths) is escaped, and a content policy
in the page forbids loading anything.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from edgeprune.errors import OutputError
from edgeprune.paths import require_replaceable
from edgeprune.report import charts, evidence, latency, words
from edgeprune.report.choices import front_section
from edgeprune.report.markup import capital, items, table
from edgeprune.report.next_steps import next_steps

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # nothing is ever loaded


def write_html(report: Mapping[str, Any], path: Path) -> None:
    """Render the page and put it at `path`, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    require_replaceable(path)
    try:
        with NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as draft:
            try:
                draft.write(render_html(report))
                draft.close()
                os.replace(draft.name, path)
            except BaseException:
                Path(draft.name).unlink(missing_ok=True)
                raise
        path.chmod(0o644)
    except OSError as e:
        raise OutputError(f"cannot write {path}: {e.strerror or e}", tip="choose another --out") from e


def render_html(report: Mapping[str, Any]) -> str:
    """The page for a report that is valid by `validate_report`."""
    name = report["model"]["name"]
    style = (files("edgeprune.report") / "page.css").read_text(encoding="utf-8")
    sections = [
        _header(report),
        _section("Accuracy", _accuracy(report)),
        _section("Latency", latency.body(report)),
        _section("Files to choose from", front_section(report)),
        _section("Samples that changed", evidence.changed_samples(report.get("changes"))),
        _section("Next steps", next_steps(report)),
        _section("Widths", _widths([*_inputs(report.get("inputs", [])), *report["layers"]])),
        _section(
            "Why the first channels went",
            evidence.first_channels(report.get("first_removed", ()), report["criterion"]["name"]),
        ),
        _section("Kept on purpose", _pinned(report["pinned"])),
        _section("Preprocessing", evidence.preprocessing(report.get("preprocessing", {}))),
        _section("How it was made", _provenance(report)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(name)} · edgeprune</title><style>{style}</style></head>\n"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _header(report: Mapping[str, Any]) -> str:
    accuracy = report["accuracy"]
    target = report["target"].get("title") or report["target"]["name"]
    macs, params, size = report["macs"], report["params"], report["file_bytes"]
    parity = report["parity"]
    cards = [
        *(_card(*tile) for tile in latency.tiles(report)),
        _card(
            "Accuracy" if accuracy is None else capital(words.measure_label(accuracy)),
            "not measured"
            if accuracy is None
            else words.measure_value(accuracy, accuracy["shipped"]["value"]),
            "no data was given" if accuracy is None else words.loss(accuracy),
        ),
        _card("MACs", *_change(macs, words.short_count, "fewer")),
        _card("Parameters", *_change(params, words.short_count, "fewer")),
        _card("File", *_change(size, words.size, "smaller")),
        _card(
            f"Parity with {parity.get('reference', 'PyTorch')}",
            f"{parity['max_abs']:.2g} at most",
            ""
            if parity["top1_agreement"] is None
            else f"top-1 agreement {words.share(parity['top1_agreement'])}",
        ),
    ]
    warnings = report.get("warnings", ())
    return (
        f"<header><h1>{escape(report['model']['name'])}</h1>"
        f"<p class=sub>compressed for {escape(target)} · {escape(_date(report['created']))}</p>"
        f"<p class=sub>{escape(words.asked(report))}</p></header>"
        f"<div class=cards>{''.join(cards)}</div>"
        + items(warnings, "warnings")
        + items((n for n in report.get("notes", ()) if n not in warnings), "notes")
    )


def _card(title: str, headline: str, detail: str, kind: str = "") -> str:
    return (
        f'<div class="card {kind}"><h3>{escape(title)}</h3><p class=big>{escape(headline)}</p>'
        f"<p class=small>{escape(detail)}</p></div>"
    )


def _change(pair: Mapping[str, Any], form: Any, word: str) -> tuple[str, str]:
    change = words.fewer(pair["dense"], pair["shipped"], word)
    return change or form(pair["shipped"]), f"{form(pair['dense'])} → {form(pair['shipped'])}"


def _accuracy(report: Mapping[str, Any]) -> str:
    accuracy = report["accuracy"]
    if accuracy is None:
        return "<p>No data was given, so the effect on accuracy is unknown.</p>"
    rows = [
        charts.Row(
            n, s["value"], s["low"], s["high"], words.measure_value(accuracy, s["value"]), n == "shipped"
        )
        for n, s in words.steps(accuracy)
    ]
    what = "Share of test samples answered correctly"
    if accuracy["measured_as"] != "accuracy":
        what = f"{capital(accuracy['measured_as'])} on the test samples"
    samples = f", {accuracy['samples']} samples" if accuracy.get("samples") else ""
    level = accuracy["dense"].get("level", 0.95)
    chart = charts.intervals(
        rows, title="Accuracy after each step", form=lambda v: words.measure_value(accuracy, v)
    )
    text = f"{what}{samples}; lines are {100 * level:g}% intervals. {capital(words.loss(accuracy))}."
    text += "".join(
        f" {capital(line)}." for line in (words.origin(accuracy), accuracy.get("task_note")) if line
    )
    rest = [(m["name"], f"{m['dense']:.4g}", f"{m['shipped']:.4g}") for m in report["metrics"]]
    return f"{chart}<p>{escape(text)}</p>" + (
        table("Further measures", ("metric", "dense", "shipped"), rest) if rest else ""
    )


def _inputs(inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Inputs whose features could go, as rows beside the layers; which ones are read is the note."""
    return [
        {
            "name": f"input {x['input']}",
            "before": x["count"],
            "after": len(x["kept"]),
            "note": f"{x['of']}: {words.ranges(x['kept'])}",
        }
        for x in inputs
    ]


def _widths(layers: Sequence[Mapping[str, Any]]) -> str:
    widest = max((x["before"] for x in layers), default=1)
    rows = []
    for x in layers:
        before, after = 100 * x["before"] / widest, 100 * x["after"] / widest
        name = escape(x["name"], quote=True)
        note = f"<small>{escape(x['note'])}</small>" if x.get("note") else ""
        rows.append(
            f'<div class=layer><span class=name title="{name}">{name}</span>'
            f'<span class=track><i class=before style="width:{before:.2f}%"></i>'
            f'<i class=after style="width:{after:.2f}%"></i></span>'
            f"<span class=num>{x['before']} → {x['after']}</span>{note}</div>"
        )
    return (
        '<p class=legend><i class="key before"></i> before <i class="key after"></i> after, in channels</p>'
        f"<div class=layers>{''.join(rows)}</div>"
        if rows
        else ""
    )


def _pinned(pinned: Sequence[Mapping[str, Any]]) -> str:
    if not pinned:
        return "<p>Nothing was pinned: every channel could have been removed.</p>"
    total: Counter[str] = Counter()
    for p in pinned:
        total[p["reason"]] += p["channels"]
    reasons = "1 reason" if len(total) == 1 else f"{len(total)} reasons"
    head = f"<p>{sum(total.values())} channels were never candidates, for {reasons}.</p>"
    rows = [(p.get("name", ""), str(p["channels"]), p["reason"]) for p in pinned]
    if any(p.get("name") for p in pinned):
        return head + table("Channels that were never candidates", ("where", "channels", "reason"), rows)
    return head + table(
        "Channels that were never candidates", ("reason", "channels"), [(row[2], row[1]) for row in rows]
    )


def _provenance(report: Mapping[str, Any]) -> str:
    criterion = report["criterion"]
    stages = [
        (s["name"], words.duration(s["seconds"]), "–" if s["peak_mb"] is None else f"{s['peak_mb']:.0f} MB")
        for s in report["stages"]
    ]
    facts = [
        ("criterion", _list({criterion["name"]: None, **criterion["settings"]})),
        ("budget", _list(report["budget"])),
        ("seed", str(report["seed"])),
        ("machine", _list(report["machine"])),
        ("versions", _list(report["versions"])),
        ("source", " ".join(str(report["model"].get(k, "")) for k in ("path", "sha256")).strip() or "–"),
    ]
    facts += [
        (f["name"], f"{words.size(f['bytes'])} {f.get('sha256', '')}".strip())
        for f in report.get("files", [])
    ]
    settings = table("What the result depends on", ("what", "value"), facts)
    return (
        table("Time and memory of each stage", ("stage", "time", "peak memory"), stages, short=True)
        + f"<details><summary>Settings, versions and hashes</summary>{settings}</details>"
    )


def _list(values: Mapping[str, Any]) -> str:
    return ", ".join(str(k) if v is None else f"{k} {v}" for k, v in values.items()) or "–"


def _date(text: str) -> str:
    """An ISO time to the minute; the seconds and the zone are in report.json."""
    return text[:16].replace("T", " ")


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""
