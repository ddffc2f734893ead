"""Target descriptors: those shipped, a user's own, and what is wrong with a bad one."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeprune import targets
from edgeprune.cli.targets import targets as command
from edgeprune.errors import TargetError
from edgeprune.records import to_json
from edgeprune.targets import list_targets, load_target, shipped_folder

SHIPPED = (
    "host",
    "android-big",
    "imx8mp",
    "jetson-orin-nano",
    "rk3588",
    "rpi-zero2w",
    "rpi3b+",
    "rpi4",
    "rpi5",
    "x86-avx2",
    "x86-avx512",
)


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch) -> Path:
    """An empty user folder."""
    folder = tmp_path / "own"
    monkeypatch.setenv("EDGEPRUNE_TARGETS", str(folder))
    folder.mkdir()
    return folder


def _write(folder: Path, name: str, old: str = "", new: str = "", *, source: str = "rpi4") -> Path:
    text = (shipped_folder() / f"{source}.toml").read_text()
    assert old in text
    path = folder / f"{name}.toml"
    path.write_text(text.replace(old, new, 1) if old else text)
    return path


def test_every_target_of_the_mission_is_shipped():
    """The eleven names are listed, host first."""
    assert list_targets() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_target_is_complete_and_every_value_has_a_basis(name):
    """Each field is tagged measured, datasheet or assumed; what is not assumed says where it is from."""
    target = load_target(name)
    assert not target.user
    values = dataclasses.asdict(target)
    assert all(values[k] is not None for k in values if k != "emulated_cpu")
    for field in target.fields:
        assert field.basis in ("measured", "datasheet", "assumed")
        assert field.note or field.basis == "assumed"
    assert target.threads <= target.cores
    assert (target.emulated_cpu is None) == (target.arch == "x86_64")
    assert target.local == (name == "host")
    json.dumps(to_json(target))


@pytest.mark.parametrize(
    ("name", "cores", "core", "l2_kb", "bandwidth", "cpu"),
    [
        ("rpi-zero2w", 4, "Cortex-A53", 512, 1.3, "cortex-a53"),
        ("rpi4", 4, "Cortex-A72", 1024, 2.4, "cortex-a72"),
        ("rpi5", 4, "Cortex-A76", 512, 6.0, "cortex-a76"),
        ("jetson-orin-nano", 6, "Cortex-A78AE", 256, 6.8, "cortex-a76"),
    ],
)
def test_known_boards_carry_their_published_facts(name, cores, core, l2_kb, bandwidth, cpu):
    """Cores, cache and memcpy bandwidth are those of the sources named in the file."""
    t = load_target(name)
    assert (t.cores, t.core, t.l2_kb, t.bandwidth_gb_s, t.emulated_cpu) == (
        cores,
        core,
        l2_kb,
        bandwidth,
        cpu,
    )


def test_int8_is_offered_only_where_the_core_has_dot_product():
    """On every ARM target the policy follows the instruction set."""
    for name in SHIPPED:
        target = load_target(name)
        if target.arch == "aarch64":
            assert (target.int8_policy == "offer") == ("dotprod" in target.isa)


def test_an_unknown_name_offers_the_nearest():
    """rpi-5 offers rpi5; a name like nothing lists what there is."""
    with pytest.raises(TargetError, match="unknown target 'rpi-5'") as caught:
        load_target("rpi-5")
    assert "did you mean rpi5" in caught.value.tip
    with pytest.raises(TargetError) as caught:
        load_target("qqqqqqq")
    assert "known are host, android-big" in caught.value.tip


@pytest.mark.parametrize("name", ["../rpi4", "/etc/passwd", "", "RPI4", "a/b"])
def test_a_name_is_never_a_path(name):
    """Only a name ending in .toml is looked up as a file."""
    with pytest.raises(TargetError, match="unknown target"):
        load_target(name)


def test_a_file_of_the_users_overrides_the_one_shipped(own):
    """A whole descriptor of the same name in the user's folder wins and says so."""
    _write(own, "rpi4", "value = 1.8", "value = 1.5")
    target = load_target("rpi4")
    assert (target.clock_ghz, target.user, target.path) == (1.5, True, own / "rpi4.toml")
    assert list_targets() == SHIPPED


def test_a_descriptor_may_state_only_what_differs_from_its_base(own):
    """base = "rpi4" inherits the rest, even under the same name; chains work; names join the list."""
    (own / "rpi4.toml").write_text(
        'schema = 1\nbase = "rpi4"\n[cpu]\nclock_ghz = { value = 1.5, basis = "measured", note = "mine" }\n'
    )
    (own / "kitchen.toml").write_text(
        'schema = 1\ntitle = "Kitchen"\nbase = "rpi4"\n'
        '[runtime]\nthreads = { value = 2, basis = "assumed" }\n'
    )
    assert (load_target("rpi4").clock_ghz, load_target("rpi4").l2_kb) == (1.5, 1024)
    kitchen = load_target("kitchen")
    assert (kitchen.title, kitchen.clock_ghz, kitchen.threads) == ("Kitchen", 1.5, 2)
    assert load_target("rpi4").title == "Raspberry Pi 4 Model B"
    assert "kitchen" in list_targets()


def test_a_base_that_leads_back_to_itself_is_named(own):
    """a → b → a is an error that names the file, not a recursion."""
    (own / "a.toml").write_text('schema = 1\nbase = "b"\n')
    (own / "b.toml").write_text('schema = 1\nbase = "a"\n')
    with pytest.raises(TargetError, match=r"b\.toml: base: 'a' leads back to itself"):
        load_target("a")
    loop = own / "loop.toml"
    loop.write_text(f'schema = 1\nbase = "{loop}"\n')
    with pytest.raises(TargetError, match="leads back to this file"):
        load_target(str(loop))


def test_a_descriptor_anywhere_is_loaded_by_its_path(tmp_path):
    """load_target("…/board.toml") reads that file; a missing one is named."""
    path = _write(tmp_path, "board")
    assert load_target(str(path)).name == "board"
    with pytest.raises(TargetError, match=r"gone\.toml: no such descriptor"):
        load_target(str(tmp_path / "gone.toml"))


@pytest.mark.parametrize(
    ("old", "new", "field", "expected"),
    [
        ("schema = 1", "schema = 2", "schema", "found 2; expected one of 1"),
        ("schema = 1", "", "schema", "missing"),
        ('title = "Raspberry Pi 4 Model B"', "", "title", "found ''; expected 1 to 10000 entries"),
        (
            "cores = { value = 4",
            'cores = { value = "four"',
            "cpu.cores",
            "found 'four'; expected a whole number",
        ),
        (
            "cores = { value = 4",
            "cores = { value = 0",
            "cpu.cores",
            "found 0; expected a number from 1",
        ),
        ("cores = { value = 4", "cores = { value = true", "cpu.cores", "found True; expected a whole number"),
        ("value = 1.8", "value = -1", "cpu.clock_ghz", "found -1.0; expected a number from 1e-06"),
        ("value = 1.8", "value = inf", "cpu.clock_ghz", "found inf; expected a finite number"),
        ("value = 1.8", "value = nan", "cpu.clock_ghz", "found nan; expected a finite number"),
        ('"aarch64"', '"armv7l"', "cpu.arch", "found 'armv7l'; expected one of x86_64, aarch64"),
        ('["neon"]', '["neon", "avx2"]', "cpu.isa", "found ['avx2']; expected names that aarch64 has"),
        ('["neon"]', '["neno"]', "cpu.isa", "expected a list of names out of"),
        ('basis = "datasheet"', 'basis = "guessed"', "cpu.arch.basis", "one of measured, datasheet, assumed"),
        (', source = "docs"', "", "cpu.arch", "found 'no source'; expected a source or a note"),
        ('source = "docs"', 'source = "blog"', "cpu.arch.source", "expected a key of [sources]: docs, bench"),
        ("little_cores", "small_cores", "cpu.small_cores", "unknown field; expected only arch, clock_ghz"),
        ("[cache]", "[cash]", "cash", "expected only the tables board, cache, cpu, emulation"),
        (
            "[runtime]\nthreads = { value = 4",
            "[runtime]\nthreads = { value = 8",
            "runtime.threads",
            "at most the 4 cores",
        ),
        ('"on-request"', '"sometimes"', "int8.policy", "one of offer, on-request"),
        ("value = false", 'value = "no"', "int8.reduce_range", "found 'no'; expected true or false"),
        ('"cortex-a72", basis = "assumed"', '"cortex-a99", basis = "assumed"', "emulation.cpu", "cortex-a53"),
        ("value = 1024", "valeu = 1024", "cache.l2_kb", "expected a table such as"),
        ("[memory]", "[memory", "not valid TOML", "line"),
    ],
)
def test_a_malformed_descriptor_names_file_field_finding_and_expectation(own, old, new, field, expected):
    """One changed token gives one line with the path, the field, what was found and what was expected."""
    path = _write(own, "board", old, new)
    with pytest.raises(TargetError) as caught:
        load_target("board")
    message = caught.value.message
    assert message.startswith(f"{path}: {field}")
    assert expected in message
    assert caught.value.exit_code == 8


def test_a_missing_field_is_named(own):
    """Deleting a line says which field is missing and how to add it."""
    text = re.sub(r"l3_kb = .*\n", "", (shipped_folder() / "rpi4.toml").read_text())
    (own / "board.toml").write_text(text)
    with pytest.raises(TargetError, match=r"board\.toml: cache\.l3_kb: missing") as caught:
        load_target("board")
    assert "add `l3_kb" in caught.value.tip


def test_descriptors_are_found_in_a_wheel_and_in_a_checkout(tmp_path, monkeypatch):
    """edgeprune/_targets wins over the checkout's targets/; without either there is an error."""
    original = shipped_folder()
    package = tmp_path / "site" / "edgeprune"
    package.mkdir(parents=True)
    monkeypatch.setattr(targets, "__file__", str(package / "targets" / "__init__.py"))
    with pytest.raises(TargetError, match="no target descriptors"):
        shipped_folder()
    shutil.copytree(original, package.parent / "targets")
    assert shipped_folder() == package.parent / "targets"
    shutil.copytree(original, package / "_targets")
    assert shipped_folder() == package / "_targets"
    assert load_target("rpi4").path.parent == package / "_targets"


def test_the_command_lists_explains_and_prints_json(own):
    """The list has a line a target; NAME shows basis and source; --json holds the record."""
    run = CliRunner().invoke
    listed = run(command, [])
    assert listed.exit_code == 0
    assert all(re.search(rf"^{re.escape(n)} ", listed.output, re.M) for n in SHIPPED)
    explained = run(command, ["rpi5"]).output
    assert re.search(r"^cpu\.cores +4 +datasheet ", explained, re.M)
    assert "Raspberry Pi 5, Raspberry Pi Compute Module 5" in explained
    assert "it is an estimate" in explained
    assert json.loads(run(command, ["rpi5", "--json"]).output)["l3_kb"] == 2048
    assert len(json.loads(run(command, ["--json"]).output)) == len(SHIPPED)


def test_one_bad_file_of_the_users_hides_neither_the_others_nor_itself(own):
    """The list keeps a row for a target whose file is malformed, and says why; JSON too."""
    _write(own, "rpi5", "cores = { value = 4", "cores = { value = 0", source="rpi5")
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0
    assert re.search(r"^rpi4 ", result.stdout, re.M)
    assert re.search(r"^rpi5 +cannot be used, see below +user$", result.stdout, re.M)
    assert "rpi5.toml: cpu.cores: found 0; expected" in result.stdout
    rows = json.loads(CliRunner().invoke(command, ["--json"]).stdout)
    assert [row["name"] for row in rows] == list(SHIPPED)
    (bad,) = [row for row in rows if "error" in row]
    assert bad["name"] == "rpi5" and "cpu.cores" in bad["error"]["message"] and bad["error"]["tip"]


def test_a_file_whose_name_no_target_can_have_is_said(own):
    """Kitchen Pi.toml is not found by any --target: the list says so and how to call it."""
    _write(own, "Kitchen Pi")
    result = CliRunner().invoke(command, [])
    assert "Kitchen Pi.toml: ignored; a target's name has small letters" in result.stdout
    assert "call it kitchen-pi.toml" in result.stdout
    rows = json.loads(CliRunner().invoke(command, ["--json"]).stdout)
    assert len(rows) == len(SHIPPED) + 1 and "ignored" in rows[-1]["error"]["message"]


def test_emulated_instructions_are_not_called_measured():
    """A count of instructions is no time: whether INT8 pays is an assumption until a board has shown it."""
    for name in SHIPPED:
        policy = next(f for f in load_target(name).fields if f.name == "int8.policy")
        assert policy.basis == "assumed"


def test_the_page_on_targets_names_every_target_and_its_example_loads(own):
    """docs/targets.md lists what is shipped, and its descriptor is valid."""
    page = Path(__file__).parents[2] / "docs" / "targets.md"
    text = page.read_text()
    for name in SHIPPED:
        assert f"| `{name}` |" in text
    (own / "first.toml").write_text(re.search(r"```toml\n(.*?)```", text, re.S)[1])
    assert (load_target("first").clock_ghz, load_target("first").threads) == (1.5, 3)
