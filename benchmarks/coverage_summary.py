"""What the coverage rows come to: passes, passes on Torch-Pruning's list, and every miss with its cause.

python benchmarks/coverage_summary.py    # of the rows that are measured, without measuring
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "coverage.json"
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


def summary(rows: dict[str, dict[str, Any]], names: list[str]) -> str:
    """Several lines; a row that was never measured counts as no pass and is named."""
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
    missing = [n for n in names if n not in rows]
    return "\n".join([*lines, *([f"never measured: {', '.join(missing)}"] if missing else [])])


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


if __name__ == "__main__":
    from coverage import names

    print(summary(json.loads(RESULTS.read_text())["rows"], names("all")))
