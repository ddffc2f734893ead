"""What the coverage rows come to: passes, passes on Torch-Pruning's list, and every miss with its cause.

python benchmarks/coverage_summary.py            # of the rows that are measured, without measuring
python benchmarks/coverage_summary.py --write    # docs/coverage.md, every row in a table
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "coverage.json"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "coverage.md"
# The 85 names of Torch-Pruning's own script (benchmarks/prunability/torchvision_pruning.py), which
# counts 12 of them as failures; theirs is judged by a forward pass.
LISTED = re.compile(
    "alexnet|vit_(b_16|b_32|l_16|l_32|h_14)|convnext_(tiny|small|base|large)|densenet(121|161|169|201)"
    "|efficientnet_(b[0-7]|v2_[sml])|googlenet|inception_v3|mnasnet.*|mobilenet_v2|mobilenet_v3_(large|small)"
    "|regnet_y_.*|resnet(18|34|50|101|152)|resnext(50_32x4d|101_32x8d)|wide_resnet.*"
    "|fcn_resnet(50|101)|deeplabv3_.*|lraspp_.*|squeezenet1_[01]|vgg(11|13|16|19)(_bn)?|ssdlite320_.*"
    "|ssd300_vgg16|fasterrcnn_.*|fcos_resnet50_fpn|raft_large|shufflenet_v2_.*|swin_[tsb]"
    "|keypointrcnn_resnet50_fpn|maskrcnn_resnet50_fpn_v2|retinanet_resnet50_fpn_v2"
)


def summary(rows: dict[str, dict[str, Any]], names: list[str], code: str) -> str:
    """Several lines; a row that was never measured counts as no pass and is named.

    Args:
        code: the hash of the code as it is now; rows of another are stale.
    """
    measured = [n for n in names if n in rows]
    passed = [n for n in measured if rows[n]["passed"]]
    vision = [n for n in names if not n.startswith("hf_")]
    listed = [n for n in vision if LISTED.fullmatch(n)]
    others = [n for n in names if n.startswith("hf_")]
    lines = [f"{len(passed)} of {len(names)} rows pass, {len(measured)} are measured"]
    for title, group in (
        ("torchvision", vision),
        ("on Torch-Pruning's list", listed),
        ("transformers", others),
    ):
        if group:
            lines.append(f"  {title}: {sum(n in passed for n in group)} of {len(group)}")
    for name in measured:
        if name not in passed:
            lines += [f"{name}: {cause(rows[name])}", *pins(rows[name])]
    old = stale(rows, measured, code)
    if old:
        lines.append(f"measured by other code than this, {len(old)} (--stale measures them again):")
        lines.append(f"    {', '.join(old)}")
    missing = [n for n in names if n not in rows]
    return "\n".join([*lines, *([f"never measured: {', '.join(missing)}"] if missing else [])])


def stale(rows: dict[str, dict[str, Any]], names: list[str], code: str) -> list[str]:
    """The measured rows that another version of the code measured."""
    return [n for n in names if n in rows and rows[n].get("code") != code]


def cause(row: dict[str, Any]) -> str:
    """Why a row is no pass, in a few words."""
    if "macs_ratio" not in row:
        return str(row.get("reason", "no result")).splitlines()[0][:160]
    found = []
    if row["macs_ratio"] is None or row["macs_ratio"] > 0.55:
        found.append(f"{row['macs_ratio']} of the MACs remain")
    if (row.get("spread_ratio") or 0) < 1000:
        found.append(f"the output varies by only {row.get('spread_ratio')} times the parity error")
    if row.get("missed"):
        found.append(f"no trace of {', '.join(row['missed'])}")
    return "; ".join(found)


def pins(row: dict[str, Any]) -> list[str]:
    """The largest pins, of each part where there are parts."""
    parts = row.get("parts", {"": row})
    return [
        f"    {part + ': ' if part else ''}{count} channels, {reason}"
        for part, found in parts.items()
        for reason, count in found.get("pins", [])[:3]
    ]


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
    vision = [n for n in names if not n.startswith("hf_")]
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
        "Written by `python benchmarks/coverage_summary.py --write` from"
        " [coverage.json](../benchmarks/results/coverage.json); `make bench-coverage` measures.",
        "",
        "Every model is cut to half of its MACs, each group by the same share, channels at random. A row"
        " passes when at most 0.55 of the MACs remain, ONNX Runtime agrees with the cut graph, and every"
        " output's standard deviation over eight inputs is at least 1,000 times its parity error. Weights are"
        " random: nothing here is about accuracy.",
        "",
        f"{len(passed)} of {len(names)} rows pass: {len(passed.intersection(vision))} of {len(vision)} from"
        f" torchvision, among them {len(passed.intersection(listed))} of the {len(listed)} on Torch-Pruning's"
        f" list, and {len(passed.intersection(others))} of {len(others)} from transformers.",
        "",
        "**Which code measured them.** A full run takes hours, so rows are of different ages."
        f" {len(fresh)} of {len(measured)} were measured by the code that this page was written with (hash"
        f" `{code}`); the others are marked ○. There are {len(codes)} versions in all. The last column is the"
        f" commit, which {len(dated)} rows have, with a plus where files that decide a row were changed after"
        " it. Rows from before commits were kept have a hash of model, coupling and surgery alone; a pass"
        " among them says what that version did. `make bench-coverage STALE=--stale` measures them again.",
        "",
        "**Seconds** are of one thread on a machine whose two cores others used at the same time: they tell"
        " the order of size, not the speed. Trace includes torch.export; it is not known for the parts of"
        " detectors, which are traced while they are looked for. [Coupling](coupling.md) has times that were"
        " taken in turns.",
        "",
        "**Free**: free channels over all channels of layer outputs; of a detector, over those of all of its"
        " parts (a dash where only the least share of a part was kept). **Recentred**: the batch norms of the"
        " cut network were set to its own means, since its output had faded. Whether they were is recorded"
        f" for {len(recorded)} rows; for {sum(rows[n]['recentred'] for n in recorded)} of them they were.",
    ]
    if fixed:
        text += ["", f"A batch that did not come out free: {', '.join(fixed)}."]
    for title, group in (("transformers", others), ("torchvision", vision)):
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


if __name__ == "__main__":
    from coverage import code_hash, names

    known, every, now = json.loads(RESULTS.read_text())["rows"], names("all"), code_hash()
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(known, every, now))
    else:
        print(summary(known, every, now))
