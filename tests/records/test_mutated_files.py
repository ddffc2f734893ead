"""Every file that the tool reads back, changed field by field: one clear error or a value, no traceback.

Types, NaN, infinity, huge numbers, missing and further keys, lists for objects, deep nesting, cut bytes.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from device_samples import write_run
from profile_samples import made_up
from report_samples import sample as report_sample

from edgeprune.deploy.bundle import open_bundle, write_bundle
from edgeprune.errors import EdgepruneError, ModelError, RunError, ShipError, TargetError
from edgeprune.latency.profiles import read_profile, write_profile
from edgeprune.pareto.pick import choices
from edgeprune.records.recipe import read_recipe
from edgeprune.report.removed import explanation, layers
from edgeprune.targets import list_targets, load_target, shipped_folder

ODD = (None, True, -1, 0, 2**80, 1.5, 1e300, "x", "", [], [[]], [True], {}, {"a": [1]}, "\ud800")
WORDS = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000)
MOST = 400  # changed files per kind
RECIPE = {
    "schema": 1,
    "tensors": {"conv.weight": {"shape": [4, 3, 3, 3], "keep": {"0": [0, 2]}}},
    "choice": {"heads": "whole", "groups": "whole"},
    "inputs": [{"input": "x", "shape": [2, 3], "of": "dim 1", "count": 3, "kept": [0, 2]}],
}
REMOVED = {
    "schema": 1,
    "channels": {"stem": [0, -1, 1]},
    "members": {"stem.weight": [[0, -1, 1], None]},
    "components": [
        {"component": 0, "removed": True, "group": "g", "criterion": "l2", "score": 0.5, "unit": "1",
         "estimator": "exact", "samples": 8, "rank": 1, "of": 2, "p_value": 0.5, "label_nats": 0.1,
         "random": {"value": 1.0, "low": 0.5, "high": 2.0}, "step": {"round": 1, "goals": {"macs": 0.5}}},
        {"component": 1, "removed": True, "group": "g"},
    ],
}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a plain value, the first entries of long lists standing for the others."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for n in range(min(len(value), 2)):
            yield from places(value[n], (*path, n))


def changed(plain: Any) -> Iterator[str]:
    """Texts of the file with one place replaced, removed, or given a number that JSON has not."""
    everywhere = list(places(plain))
    for path in everywhere:
        for odd in (*ODD, *(f"@@{word}@@" for word in WORDS), "@@gone@@", "@@more@@"):
            root = {"": copy.deepcopy(plain)}
            at, key = root, ""
            for step in path:
                at, key = at[key], step
            if odd == "@@gone@@":
                if path and isinstance(at, dict):
                    del at[key]
            elif odd == "@@more@@":
                if isinstance(at[key], dict):
                    at[key]["unheard of"] = 1
            else:
                at[key] = odd
            text = json.dumps(root[""])
            for word in WORDS:
                text = text.replace(f'"@@{word}@@"', word)
            yield text
    whole = json.dumps(plain)
    yield from (whole[: len(whole) // 2], "", "[" * 100_000, "null", "7", '"text"')


def survives(texts: Iterator[str], write: Callable[[str], None], read: Callable[[], Any]) -> int:
    """Read each changed file; gives how many were refused. Anything but an EdgepruneError fails the test."""
    every = list(texts)
    step = max(1, len(every) // MOST)
    chosen = [*every[::step], *every[-6:]]
    errors = []
    for text in chosen:
        write(text)
        try:
            read()
        except EdgepruneError as error:
            errors.append(error)
    for error in errors:
        assert error.message and "\n" not in str(error) and len(error.message) < 1500
    return len(errors)


def test_a_changed_report_or_preprocess_is_refused_or_read(tmp_path):
    """`pick` and `explain` on odd values in report.json."""
    path = tmp_path / "report.json"
    plain = json.loads(json.dumps(report_sample()))
    assert survives(changed(plain), path.write_text, lambda: choices(tmp_path)) > 20


def test_a_changed_removed_json_is_refused_or_read(tmp_path):
    """`explain` on every layer and channel."""
    (tmp_path / "report.json").write_text(json.dumps({"pinned": [{"channels": 1, "reason": "output"}]}))

    def read() -> None:
        for row in layers(tmp_path):
            explanation(tmp_path, row["layer"])
            explanation(tmp_path, f"{row['layer']}:0")

    path = tmp_path / "removed.json"
    assert survives(changed(REMOVED), path.write_text, read) > 100


def test_a_changed_recipe_is_refused_or_read(tmp_path):
    """`true` is no index; indices are whole numbers, ascending and within the tensor."""
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(RECIPE))
    assert read_recipe(path) == RECIPE
    assert survives(changed(RECIPE), path.write_text, lambda: read_recipe(path)) > 100
    for keep in ([True], [1.0], [2, 0], [0, 0], [4], [-1], [], None):
        bad = copy.deepcopy(RECIPE)
        bad["tensors"]["conv.weight"]["keep"]["0"] = keep
        path.write_text(json.dumps(bad))
        with pytest.raises(ModelError, match=r"recipe\.json: .*keep"):
            read_recipe(path)


def test_a_changed_profile_is_refused_or_read(tmp_path):
    """Times are finite and not negative, rows belong together."""
    path = tmp_path / "p.json"
    write_profile(path, made_up(3))
    plain = json.loads(path.read_text())
    assert survives(changed(plain), path.write_text, lambda: read_profile(path).dense_ms) > 100


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A bundle written as a folder."""
    write_bundle(open_bundle(write_run(tmp_path / "run")), tmp_path / "bundle")
    return tmp_path / "bundle"


def sealer(folder: Path) -> Callable[[str], None]:
    """Writes a manifest with a seal that fits it, as an attacker would."""

    def write(text: str) -> None:
        (folder / "manifest.json").write_text(text)
        (folder / "manifest.sha256").write_text(hashlib.sha256(text.encode()).hexdigest())

    return write


def test_a_changed_manifest_is_refused_or_read(bundle):
    """What a bundle says of itself is typed, finite and bounded."""
    plain = json.loads((bundle / "manifest.json").read_text())
    assert survives(changed(plain), sealer(bundle), lambda: open_bundle(bundle)) > 200


@pytest.mark.parametrize("tolerance", ["Infinity", "NaN", "1e30", "0.9", "-1", "true", '"0.1"'])
def test_a_tolerance_that_would_accept_anything_is_refused(bundle, tolerance):
    """A sealed manifest whose tolerance accepts other outputs is no bundle."""
    plain = json.loads((bundle / "manifest.json").read_text())
    plain["smoke"]["tolerance"] = "@@"
    sealer(bundle)(json.dumps(plain).replace('"@@"', tolerance))
    with pytest.raises(ShipError, match=r"manifest\.json: (damaged|smoke\.tolerance)"):
        open_bundle(bundle)


def test_a_changed_preprocess_is_refused_or_read(tmp_path):
    """The facts that a bundle takes from the run."""
    run = write_run(tmp_path / "run")
    plain = json.loads((run / "preprocess.json").read_text())
    path = run / "preprocess.json"
    assert survives(changed(plain), path.write_text, lambda: open_bundle(run)) > 5


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """The user's folder of descriptors."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setenv("EDGEPRUNE_TARGETS", str(folder))
    return folder


def test_a_changed_descriptor_is_refused_or_read(own):
    """Every token of a shipped descriptor replaced by an odd one."""
    text = (shipped_folder() / "rpi4.toml").read_text()
    path, messages = own / "board.toml", []
    odd = ("inf", "nan", "-1", "[]", "{}", "true", '""', "'x'", "9" * 5000, "1e400", "[[[[", "")
    values = text.split("value = ")[1:]
    for n, part in enumerate(values):
        old = part.split(", basis")[0]
        for new in odd:
            pieces = text.split("value = ")
            pieces[n + 1] = new + part[len(old) :]
            path.write_text("value = ".join(pieces))
            try:
                load_target("board")
            except TargetError as error:
                messages.append(error.message)
    assert all(str(path) in message for message in messages)
    assert len(messages) > 9 * len(values)


def test_a_deeply_nested_descriptor_spoils_itself_only(own):
    """`edgeprune targets` lists the others and says what is wrong with this one."""
    from click.testing import CliRunner

    from edgeprune.cli.targets import targets

    (own / "deep.toml").write_text("schema = " + "[" * 50_000 + "]" * 50_000)
    with pytest.raises(TargetError, match="nested too deeply"):
        load_target("deep")
    done = CliRunner().invoke(targets, [], catch_exceptions=False)
    assert done.exit_code == 0 and "rpi4" in done.output and "nested too deeply" in done.output
    assert "deep" in list_targets()


def test_a_report_that_is_a_list_a_number_or_deep_is_one_line(tmp_path):
    """No finished run has such files; the message names the file."""
    for text in ("[]", "7", "[" * 100_000, '{"front": {"a": 1}}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(RunError, match=r"report\.json"):
            choices(tmp_path)
