"""What README and guides show works: the Python example runs, every command line parses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from edgeprune.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def command_lines() -> list[tuple[str, str]]:
    """(page, command) of every `$ edgeprune …` in a console block, continuation lines joined."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.lstrip().startswith("$ edgeprune "):
                    found.append((page.name, line.lstrip().removeprefix("$ edgeprune ")))
    return found


def test_the_python_example_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    """It is executed as written, in an empty folder, and prints the file to ship."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"<!-- runs in [^>]*-->\n```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "run/model.onnx" in printed and (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_every_command_shown_is_one(page, line):
    """Known command, known options, values of the right form; files need not exist."""
    words = shlex.split(line.split(" | ")[0].split(" > ")[0], comments=True)
    name, arguments = words[0], words[1:]
    assert name in COMMANDS, f"{page}: edgeprune {name}"
    command = cli.get_command(click.Context(cli), name)
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
    for word in arguments:
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"{page}: edgeprune {line}: {word}"
    positional = [p for p in command.params if isinstance(p, click.Argument)]
    assert positional or not arguments or arguments[0].startswith("-")


def test_links_between_pages_lead_somewhere():
    """Relative links of README, CONTRIBUTING, SECURITY and docs point at files of the checkout."""
    for page in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
