"""docs/coverage.md: every row of the coverage table, what the rows come to, and how old each is.

python -m benchmarks.coverage.page            # what the measured rows come to, and which are stale
python -m benchmarks.coverage.page --write    # write the page
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from benchmarks.coverage.run import all_rows
from benchmarks.coverage.summary import LISTED, cause, known_rows, stale, summary
from benchmarks.coverage.versions import code_hash
from benchmarks.recording import ROOT

PAGE = ROOT / "docs" / "coverage.md"
HEAD = (
    "model",
    "",
    "units",
    "free",
    "MACs left",
    "parameters left",
    "trace s",
    "coupling s",
    "surgery s",
    "parity",
    "spread / parity",
    "code",
)


def page(rows: dict[str, dict[str, Any]], names: list[str], code: str) -> str:
    """docs/coverage.md: how rows are judged, what they come to, and all of them."""
    measured = [n for n in names if n in rows]
    passed = {n for n in measured if rows[n]["passed"]}
    detectors = [n for n in names if n.startswith("ul_")]
    vision = [n for n in names if not n.startswith(("hf_", "ul_"))]
    listed = [n for n in vision if LISTED.fullmatch(n)]
    others = [n for n in names if n.startswith("hf_")]
    fresh = [n for n in measured if n not in stale(rows, measured, code)]
    dated = [n for n in measured if rows[n].get("commit")]
    recorded = [n for n in measured if "recentred" in rows[n]]
    codes = Counter(str(rows[n].get("code")) for n in measured)
    fixed = [n for n in measured if rows[n].get("dynamic_batch") is False]
    text = [
        "# Coverage of real models",
        "",
        "Written by `python -m benchmarks.coverage.page --write` from"
        " [coverage.json](../benchmarks/results/coverage.json); `make bench-coverage` measures.",
        "",
        "Every model is cut to half of its MACs, each group by the same share, channels at random. A row"
        " passes when at most 0.55 of the MACs remain, ONNX Runtime agrees with the cut graph, and every"
        " output's standard deviation over eight inputs is at least 1,000 times its parity error. Weights are"
        " random, so this page makes no statement about accuracy.",
        "",
        f"{len(passed)} of {len(names)} rows pass: {len(passed.intersection(vision))} of {len(vision)} from"
        f" torchvision, among them {len(passed.intersection(listed))} of the {len(listed)} on Torch-Pruning's"
        f" list, {len(passed.intersection(others))} of {len(others)} from transformers, and"
        f" {len(passed.intersection(detectors))} of {len(detectors)} from Ultralytics, each in its"
        " own export form.",
        "",
        "**Which code measured the rows.** A full run takes hours, so rows are of different ages."
        f" {len(fresh)} of {len(measured)} were measured by the code that this page was written with (hash"
        f" `{code}`); the others are marked ○. There are {len(codes)} versions in all. The last column is the"
        f" commit, which {len(dated)} rows have, with a plus where files that decide a row were changed after"
        " it. Rows from before commits were kept have a hash of model, coupling and surgery alone; a pass"
        " among them is a statement about that version. `make coverage-stale` lists the rows that other code"
        " measured, without measuring; `make bench-coverage STALE=--stale` measures them again.",
        "",
        "**Seconds** are of one thread on a shared machine with two cores: they give the order of magnitude,"
        " not the speed. Trace includes torch.export; it is not recorded for the parts of detectors, which"
        " are traced while they are searched for. [Coupling](coupling.md) has times from interleaved rounds.",
        "",
        "**Free**: free channels over all channels of layer outputs; of a detector, over those of all of its"
        " parts (a dash where only the least share of a part was recorded). **Recentred**: the batch norms of"
        " the cut network were set to its own means, since its output had nearly no variance. This is"
        f" recorded for {len(recorded)} rows and applies to"
        f" {sum(rows[n]['recentred'] for n in recorded)} of them.",
    ]
    if fixed:
        text += ["", f"A batch that did not come out free: {', '.join(fixed)}."]
    sections = (("transformers", others), ("Ultralytics", detectors), ("torchvision", vision))
    for title, group in sections:
        text += ["", f"## {title}", "", "| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
        text += [_table_row(n, rows.get(n), rows.get(n, {}).get("code") == code) for n in group]
    return "\n".join(text) + "\n"


def _table_row(name: str, row: dict[str, Any] | None, fresh: bool) -> str:
    """One line of the page; without numbers, the reason."""
    blank = ["–"] * (len(HEAD) - 3)
    if row is None:
        return "| " + " | ".join([name, "never measured", *blank, ""]) + " |"
    of = f"{'' if fresh else '○ '}{row.get('commit') or row.get('code') or 'unknown'}"
    if "macs_ratio" not in row:
        return "| " + " | ".join([name, cause(row).replace("|", "/"), *blank, of]) + " |"
    least = "parts" in row and "channels" not in row
    verdict = "pass" if row["passed"] else cause(row)
    seconds = row["seconds"]
    cells = [
        name,
        verdict + (", recentred" if row.get("recentred") else ""),
        f"{row['components']:,}",
        "–" if least else f"{row['free_share']:.3f}",
        f"{row['macs_ratio']:.3f}" if row["macs_ratio"] is not None else "–",
        f"{row['params_ratio']:.3f}",
        *(f"{seconds[k]:.2f}" if seconds.get(k) else "–" for k in ("trace", "coupling", "surgery")),
        f"{row['parity_max_abs']:.1e}" if row.get("parity_max_abs") is not None else "–",
        f"{row['spread_ratio']:,.0f}" if row.get("spread_ratio") else "–",
        of,
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the summary, or write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.coverage.page", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--write", action="store_true", help="write docs/coverage.md")
    options = parser.parse_args()
    known, every, now = known_rows(), list(all_rows()), code_hash()
    if options.write:
        PAGE.write_text(page(known, every, now))
    else:
        print(summary(known, every, now))


if __name__ == "__main__":
    main()
