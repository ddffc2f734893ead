"""What a command line user expects: suggestions, fast refusals before torch is loaded, codes for scripts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgeprune.cli import main
from edgeprune.errors import BudgetError, EdgepruneError, UnsafeModelError


def test_a_mistyped_command_gets_the_nearest(capsys):
    """`comprss` is answered with compress, and ends with the code of usage errors."""
    with pytest.raises(SystemExit, match="2"):
        main(["comprss", "model.pt2"])
    assert "Did you mean compress?" in capsys.readouterr().err


def test_the_old_name_of_the_board_option_is_pointed_to_the_new(capsys):
    """--device is gone; click names --board-like options or says that there is none of the name."""
    with pytest.raises(SystemExit, match="2"):
        main(["compress", "model.pt2", "--device", "pi@pi"])
    assert "--device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["compress", "missing.pt2"], 3),
        (["compress", "{file}", "--data", "nowhere.npz"], 5),
        (["compress", "{file}", "--target", "rpi44"], 8),
        (["compress", "{file}", "--macs", "7"], 6),
        (["compress", "{file}", "--speedup", "0.5"], 6),
        (["compress", "{file}", "--task", "clasification"], 5),
        (["compress", "{file}", "--rounds", "0"], 19),
        (["compress", "{file}", "--int8", "maybe"], 2),
        (["prune", "{file}", "--macs", "x"], 6),
        (["export", "missing.pt2"], 3),
        (["score", "{file}", "--data", "nowhere.npz"], 5),
    ],
)
def test_wrong_paths_and_values_are_refused_before_torch_is_imported(arguments, code, tmp_path):
    """Each ends with its own code, in a process that never imports torch."""
    file = tmp_path / "model.pt2"
    file.write_bytes(b"PK")
    words = [a.replace("{file}", str(file)) for a in arguments]
    program = (
        "import sys\nfrom edgeprune.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit as e: code = e.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_errors_have_a_stable_code_and_json_carries_it(tmp_path, capsys, monkeypatch):
    """The class gives the code unless a place gives a finer one."""
    assert BudgetError("x").code == "budget" and UnsafeModelError("x").code == "unsafe-model"
    assert (
        EdgepruneError("x").code == "error" and BudgetError("x", code="budget.floor").code == "budget.floor"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="3"):
        main(["compress", "missing.pt2", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["error"]["code"] == "model" and printed["error"]["exit_code"] == 3


def test_help_of_compress_has_groups_and_examples(capsys):
    """Options stand under what they are about, and two commands show how it is used."""
    with pytest.raises(SystemExit, match="0"):
        main(["compress", "--help"])
    text = capsys.readouterr().out
    heads = ["Model and data:", "Budget:", "Target and timing:", "Scoring and search:", "Recovery:"]
    assert [h for h in heads if h in text] == heads
    assert text.count("edgeprune compress ") >= 2 and "--device" not in text
