"""What to do with a run folder: commands and three lines of Python, with the names of this run.

Guarantee: every command runs as printed in the run folder, but for the place that a bundle is sent to; a
command for something that this run does not have (no front, nothing removed) is left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from edgeprune.report.markup import code

PYTHON = """\
import numpy, onnxruntime
session, inputs = onnxruntime.InferenceSession("model.onnx"), numpy.load("golden.npz")
print(session.run(None, {x.name: inputs[f"input_{i}"] for i, x in enumerate(session.get_inputs())}))"""


def commands(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What each command is for, and the command."""
    steps = []
    removed = next((x for x in report.get("first_removed", ())), None)
    shrunk = next((x["name"] for x in report["layers"] if x["after"] < x["before"]), None)
    wanted = f"{removed['layer']}:{removed['channel']}" if removed else shrunk
    if wanted:
        steps.append(("why a channel went", f"edgeprune explain . {shlex.quote(wanted)}"))
    other = next((p["name"] for p in report["front"] if not p["chosen"] and _pickable(p)), None)
    if other:
        steps.append(
            ("take another file of the front", f"edgeprune pick . {shlex.quote(other)} -o ../picked")
        )
    steps.append(("pack it with its check for a device", "edgeprune ship . --bundle ../bundle"))
    steps.append(("send it to a board and check it there", "edgeprune ship . USER@BOARD"))
    return steps


def next_steps(report: Mapping[str, Any]) -> str:
    """The section."""
    lines = "\n".join(f"# {what}\n{command}" for what, command in commands(report))
    return (
        f"<p>In this folder, in a terminal:</p>{code(lines)}"
        f"<p>In Python, on the inputs that were recorded with it:</p>{code(PYTHON)}"
    )


def _pickable(point: Mapping[str, Any]) -> bool:
    return str(point["file"]).startswith("front/")
