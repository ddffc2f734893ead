"""Each guide runs from top to bottom: its Python blocks, then its commands, on the data it makes or names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from shop import Shop

ROOT = Path(__file__).parents[2]
GUIDES = sorted((ROOT / "docs").glob("guide-*.md"))
# A marked block runs; options behind "faster with" join each `compress`, so that the test takes seconds.
MARKED = re.compile(
    r"<!-- runs in tests/docs/test_guides\.py(?:, faster with: (.*?))? -->\n```(python|console)\n(.*?)```",
    re.DOTALL,
)
BLOCK = re.compile(r"^```(?:python|console)$", re.MULTILINE)


@pytest.mark.timeout(600)  # about half a minute of processor time each, on machines that may be shared
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_runs_as_written(page, tmp_path, monkeypatch):
    """Every command succeeds and prints something, and the run it leads to ends with a file and a report."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    shop = Shop(tmp_path, None, None)
    for options, language, text in MARKED.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(text, page.name, "exec"), {"__name__": "guide"})
            continue
        for line in text.replace("\\\n", " ").splitlines():
            prompt, program, *arguments = shlex.split(line)
            assert (prompt, program) == ("$", "edgeprune"), line
            faster = shlex.split(options) if arguments[0] == "compress" else []
            done = shop.run(*arguments, *faster)
            assert done.code == 0 and done.out.strip(), f"{line}\n{done.err}"
    (report,) = tmp_path.glob("*/report.html")
    assert report.with_name("model.onnx").is_file()


def test_every_block_of_a_guide_runs():
    """A guide shows no command and no code that the test above leaves out."""
    assert len(GUIDES) >= 3
    for page in GUIDES:
        text = page.read_text(encoding="utf-8")
        assert len(MARKED.findall(text)) == len(BLOCK.findall(text)) > 1, page.name
