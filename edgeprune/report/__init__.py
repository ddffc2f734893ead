"""What a run has to say, for people: a table, a page and a reason per channel.

Everything is rendered from the plain content of report.json and removed.json, so an old run folder
can be rendered again. Guarantee: no milliseconds for a target that was not timed, and a speed-up whose
interval touches 1 is called "not faster"; a speed-up on another machine than the target names that machine.
Elsewhere: gathering the numbers (pipeline), printing (cli).
"""

from __future__ import annotations

from edgeprune.report.explanation import render_explanation
from edgeprune.report.page import render_html, write_html
from edgeprune.report.schema import SCHEMA, validate_report
from edgeprune.report.table import render_table

__all__ = ["SCHEMA", "render_explanation", "render_html", "render_table", "validate_report", "write_html"]
