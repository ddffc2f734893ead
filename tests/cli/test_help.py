"""The command line as a newcomer meets it: fast, documented, complete."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from edgeprune.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]


def test_help_does_not_import_torch():
    """`edgeprune --help` names every command and leaves torch, NumPy and onnxruntime out of the process."""
    code = (
        "import sys, contextlib\nfrom edgeprune.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "sys.exit(sum(m in sys.modules for m in ('torch', 'numpy', 'onnxruntime', 'rich')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE), name


@pytest.mark.timing
def test_help_answers_well_under_a_second():
    """The best of three starts, so that a busy machine does not decide."""
    best = 9.0
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "edgeprune", "--help"], capture_output=True, check=True)
        best = min(best, time.perf_counter() - began)
    assert best < 1.0


def test_importing_edgeprune_does_not_import_torch():
    """compress and information load on use; an unknown name is an AttributeError."""
    code = (
        "import sys, edgeprune\nassert not {'torch', 'numpy'} & set(sys.modules)\n"
        "assert {'compress', 'information'} <= set(dir(edgeprune))\n"
        "edgeprune.information.entropy\nassert 'torch' not in sys.modules\n"
        "assert not hasattr(edgeprune, 'nothing')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_documented(name):
    """The README names it, docs/ has a section for it, and it takes --json."""
    pages = "\n".join(p.read_text() for p in (ROOT / "docs").glob("*.md"))
    assert re.search(rf"^#+ .*`?edgeprune {name}\b|^#+ .*`{name}`", pages, re.MULTILINE)
    assert re.search(rf"edgeprune {name}\b|`{name}`", (ROOT / "README.md").read_text())
    command = cli.get_command(click.Context(cli), name)
    assert command is not None and command.help
    assert any("--json" in p.opts for p in command.params)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_documented(name):
    """Each option of a command stands in docs/cli.md, or in a page that describes the command."""
    pages = pages_of(name)
    command = cli.get_command(click.Context(cli), name)
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")}
    missing = {o for o in known if not re.search(rf"(?<![\w-]){re.escape(o)}(?![\w-])", pages)}
    assert not missing


def pages_of(name):
    """docs/cli.md, what its section of the command links to, and pages with a section of their own."""
    main = (ROOT / "docs" / "cli.md").read_text()
    section = re.search(rf"^## [^\n]*\b{name}\b.*?(?=^## |\Z)", main, re.MULTILINE | re.DOTALL)
    linked = set(re.findall(r"\]\((\w+\.md)\)", section[0])) if section else set()
    pages = {p.name: p.read_text() for p in (ROOT / "docs").glob("*.md")}
    own = {n for n, text in pages.items() if re.search(rf"^## edgeprune {name}$", text, re.MULTILINE)}
    return "\n".join([main, *(pages[n] for n in sorted(linked | own))])


def test_docs_name_no_option_that_does_not_exist():
    """Every --option in docs/cli.md belongs to a command."""
    known = {"--help", "--version"}
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        known |= {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", (ROOT / "docs" / "cli.md").read_text()))
    assert found <= known, found - known


def test_every_exit_code_is_documented():
    """The table of docs/cli.md is the exception tree."""
    import edgeprune.errors as errors

    tree = {v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, errors.EdgepruneError)}
    page = (ROOT / "docs" / "cli.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| `?(\w+)`?", page, re.MULTILINE))
    assert {str(e.exit_code): e.__name__ for e in tree}.items() <= rows.items()


def test_the_report_of_a_run_is_printed_as_json(shop, finished):
    """--json prints report.json itself; every metric and every further set stands before and after."""
    folder, outcome = finished
    report = json.loads(outcome.out)
    assert report == json.loads((folder / "report.json").read_text())
    rows = {m["name"]: (m["dense"], m["shipped"]) for m in report["metrics"]}
    assert set(rows) == {"top5", "accuracy (first)", "accuracy (second)"}
    assert rows["accuracy (first)"] == rows["accuracy (second)"]
    assert all(0 <= v <= 1 for pair in rows.values() for v in pair)
    assert report["accuracy"]["measured_as"] == "accuracy"
    assert report["macs"]["shipped"] <= 0.4 * report["macs"]["dense"]
    for file in report["files"]:
        assert (folder / file["name"]).stat().st_size == file["bytes"]
