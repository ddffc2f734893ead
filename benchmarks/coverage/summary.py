"""Summary of the coverage rows: passes, passes on Torch-Pruning's list, misses with causes, stale rows.

Works on the records alone; nothing is measured.
"""

from __future__ import annotations

import re
from typing import Any

from benchmarks.recording import RESULTS as FOLDER
from benchmarks.recording import read_result

RESULTS = FOLDER / "coverage.json"
BULK = ("parts", "pins", "seconds")  # of a row, kept beside the readable results
# The 85 names of Torch-Pruning's own script (torchvision_pruning.py of its prunability benchmark), which
# counts 12 of them as failures; theirs is judged by a forward pass.
LISTED = re.compile(
    "alexnet|vit_(b_16|b_32|l_16|l_32|h_14)|convnext_(tiny|small|base|large)|densenet(121|161|169|201)"
    "|efficientnet_(b[0-7]|v2_[sml])|googlenet|inception_v3|mnasnet.*|mobilenet_v2|mobilenet_v3_(large|small)"
    "|regnet_y_.*|resnet(18|34|50|101|152)|resnext(50_32x4d|101_32x8d)|wide_resnet.*"
    "|fcn_resnet(50|101)|deeplabv3_.*|lraspp_.*|squeezenet1_[01]|vgg(11|13|16|19)(_bn)?|ssdlite320_.*"
    "|ssd300_vgg16|fasterrcnn_.*|fcos_resnet50_fpn|raft_large|shufflenet_v2_.*|swin_[tsb]"
    "|keypointrcnn_resnet50_fpn|maskrcnn_resnet50_fpn_v2|retinanet_resnet50_fpn_v2"
)


def known_rows() -> dict[str, dict[str, Any]]:
    """Name -> row in full, of everything that was measured."""
    rows: dict[str, dict[str, Any]] = read_result(RESULTS)["cells"] if RESULTS.exists() else {}
    return rows


def readable(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without their bulk."""
    return [{"model": n, **{k: v for k, v in row.items() if k not in BULK}} for n, row in rows.items()]


def summary(rows: dict[str, dict[str, Any]], names: list[str], code: str) -> str:
    """Several lines; a row that was never measured counts as no pass and is named.

    Args:
        code: the hash of the code as it is now; rows of another are stale.
    """
    measured = [n for n in names if n in rows]
    passed = [n for n in measured if rows[n]["passed"]]
    detectors = [n for n in names if n.startswith("ul_")]
    vision = [n for n in names if not n.startswith(("hf_", "ul_"))]
    listed = [n for n in vision if LISTED.fullmatch(n)]
    others = [n for n in names if n.startswith("hf_")]
    lines = [f"{len(passed)} of {len(names)} rows pass, {len(measured)} are measured"]
    for title, group in (
        ("torchvision", vision),
        ("on Torch-Pruning's list", listed),
        ("transformers", others),
        ("Ultralytics", detectors),
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
