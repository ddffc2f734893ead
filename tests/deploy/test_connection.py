"""What a board that cannot be used is told, by a real OpenSSH server and its client."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from device_samples import write_run

from edgeprune.cli.bench import bench
from edgeprune.cli.device import doctor, split_destination, verify
from edgeprune.cli.profile import profile
from edgeprune.deploy import preflight
from edgeprune.deploy.doctor import diagnose_board
from edgeprune.deploy.remote import Board, board_bench
from edgeprune.deploy.ssh import Remote, require_destination
from edgeprune.errors import DeviceError, ShipError
from edgeprune.measure.request import BenchRequest


@pytest.mark.parametrize(
    ("name", "says", "tip"),
    [
        ("unknown", "host key of unknown is unknown", "--accept-new-host-key"),
        ("changed", "host key of changed is not the one known", "ssh-keygen -R changed"),
        ("stranger", "stranger refused the key", "ssh-copy-id stranger"),
        ("nopython", "there is no python3", "--board-python"),
        ("sigill", "onnxruntime dies with signal 4 on import", "another version"),
        ("noort", "numpy and onnxruntime not installed", "--make-venv"),
    ],
)
def test_a_device_that_is_not_fit_is_one_clear_line(native, cnn, name, says, tip):
    """Each trouble is a DeviceError that names it and says what to do, before a model travels."""
    with Remote(name) as remote, pytest.raises(DeviceError, match=says) as caught:
        board_bench(Board(remote), BenchRequest((cnn,)))
    assert tip in caught.value.tip
    assert "\n" not in str(caught.value)


def test_an_unknown_key_is_taken_only_on_request(native):
    """accept_new connects and remembers the key; a changed key is refused even then."""
    with Remote("unknown", accept_new=True) as remote:
        assert Board(remote).preflight()["problems"] == []
    assert (native.folder / "no_hosts").read_text().startswith("[127.0.0.1]")
    (native.folder / "no_hosts").write_text("")
    with Remote("changed", accept_new=True) as remote, pytest.raises(DeviceError, match="not the one known"):
        Board(remote).preflight()


def test_nobody_listens(native, tmp_path):
    """A closed port is told from an unknown host."""
    config = tmp_path / "config"
    config.write_text(
        "Host closed\n HostName 127.0.0.1\n Port 1\nHost nowhere\n HostName no-such-host.invalid\n"
    )
    for name, says in (("closed", "refused the connection"), ("nowhere", "no host is called")):
        with Remote(name, config=config) as remote, pytest.raises(DeviceError, match=says):
            remote.run(["true"])


@pytest.mark.parametrize(
    "name", ["-oProxyCommand=touch x", "", "a b", "host;reboot", "$(reboot)", "a\nb", "`x`"]
)
def test_a_name_that_could_be_an_option_or_a_command_is_refused(name):
    """Nothing that ssh or a shell could take for something else reaches them."""
    with pytest.raises(DeviceError, match="not a board"):
        Remote(name)


def test_arguments_arrive_as_they_are(native):
    """Spaces, quotes, dollars and newlines in an argument are not interpreted by any shell."""
    odd = ["a b", "'", '"', "$HOME", "*", "; echo x", "line\nbreak", "", "-n"]
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    with Remote("native") as remote:
        done = remote.run(["python3", "-c", code, *odd])
    assert json.loads(done.stdout) == odd


def test_one_connection_serves_many_commands(native):
    """The second command reuses the first one's connection, and leaving ends it."""
    with Remote("native") as remote:
        seen = {remote.run(["sh", "-c", "echo $SSH_CONNECTION"]).stdout for _ in range(3)}
    assert len(seen) == 1
    assert not os.path.exists(remote._private.name)


def test_a_program_that_hangs_is_given_up(native):
    """A timeout ends the local side and says so."""
    with Remote("native") as remote, pytest.raises(DeviceError, match="did not finish in 1 s"):
        remote.run(["sleep", "20"], timeout=1)


def test_no_such_configuration(tmp_path):
    """A wrong --ssh-config is said before ssh starts."""
    with pytest.raises(DeviceError, match="no SSH configuration"):
        Remote("native", config=tmp_path / "none")


def test_the_wrong_architecture_is_refused(native, cnn):
    """A file made for a Pi is not timed on an x86 machine by mistake."""
    other = "x86_64" if os.uname().machine == "aarch64" else "aarch64"
    with Remote("native") as remote, pytest.raises(DeviceError, match=f"but this was made for {other}"):
        board_bench(Board(remote), BenchRequest((cnn,)), architecture=other)


def test_bench_on_a_device_has_every_number(native, cnn):
    """Over ssh to real hardware the record is the host's, with the board's name."""
    with Remote("native") as remote:
        found = board_bench(Board(remote), BenchRequest((cnn, cnn), seconds=0.1))
    assert found.board == "native"
    assert found.models[0].p50_ms.value > 0
    assert found.models[0].peak_mb > 0
    assert len(found.ratios) == 1


def test_bench_sends_external_data_and_recorded_inputs(native, run_folder, tmp_path):
    """A model with a data file beside it runs there, on inputs from a file."""
    folder = write_run(tmp_path / "external", external=True)
    with Remote("native") as remote:
        found = board_bench(
            Board(remote), BenchRequest((folder / "model.onnx",), seconds=0, inputs=folder / "golden.npz")
        )
    assert found.models[0].file_bytes > (folder / "model.onnx").stat().st_size


def test_nothing_is_left_on_the_device(native, cnn, tmp_path, monkeypatch):
    """What bench sent is removed from the board's temporary folder."""
    (tmp_path / "there").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "there"))
    code = "import tempfile; print(tempfile.gettempdir())"
    with Remote("native") as remote:
        before = set(os.listdir(remote.run(["python3", "-c", code]).stdout.decode().strip()))
        board_bench(Board(remote), BenchRequest((cnn,), seconds=0))
        after = set(os.listdir(remote.run(["python3", "-c", code]).stdout.decode().strip()))
    assert not {name for name in after - before if name.startswith("edgeprune-") and "ssh" not in name}


def test_the_arm_device_runs_end_to_end_and_shows_no_time(arm, cnn):
    """`bench --board` through the server into aarch64: the file runs, and no millisecond is printed."""
    done = CliRunner().invoke(bench, [str(cnn), "--board", "arm"], catch_exceptions=False)
    assert "aarch64" in done.output
    assert "emulated (cortex-a72)" in done.output
    assert " ms" not in done.output
    found = json.loads(CliRunner().invoke(bench, [str(cnn), "--board", "arm", "--json"]).output)
    assert found["emulated"] == "cortex-a72"
    assert found["models"][0]["p50_ms"] is None


def test_doctor_names_what_is_missing_and_what_to_do(native):
    """A fit board has no problem; a broken one has one with a tip and exit code 1; so has an absent one."""
    done = CliRunner().invoke(doctor, ["--board", "native", "--json"], standalone_mode=False)
    board = [f for f in json.loads(done.output) if f["what"] == "native"]
    assert board[0]["ok"]
    for name, says in (("noort", "--make-venv"), ("stranger", "ssh-copy-id")):
        done = CliRunner().invoke(doctor, ["--board", name], standalone_mode=False)
        assert done.return_value == 1
        assert says in done.output


def test_doctor_reports_a_device_that_is_not_reached(native):
    """Diagnosis never raises: no connection is a finding."""
    with Remote("unknown") as remote:
        (finding,) = diagnose_board(Board(remote))
    assert not finding.ok


@pytest.mark.parametrize(
    ("machine", "bits", "python", "libc", "says"),
    [
        ("armv7l", 32, (3, 11), "2.36", "architecture armv7l"),
        ("aarch64", 32, (3, 11), "2.36", "32-bit system on a 64-bit processor"),
        ("aarch64", 64, (3, 7), "2.36", "Python 3.7 is too old"),
        ("aarch64", 64, (3, 11), "2.24", "glibc 2.24 is too old"),
    ],
)
def test_systems_that_no_wheel_fits(machine, bits, python, libc, says):
    """32-bit systems and old C libraries or Pythons are told apart."""
    (found,) = preflight.system_problems(machine, bits, python, libc, True)
    assert says in found


def test_a_fit_system_has_no_problem():
    """A Pi 4 with the 64-bit system passes."""
    assert preflight.system_problems("aarch64", 64, (3, 11), "2.36", True) == []


def test_the_pair_that_dies_on_a_pi_4_is_known():
    """onnxruntime 1.21.0 on a Cortex-A72 is named before it is imported; elsewhere it is fine."""
    a72, a76 = "CPU part\t: 0xd08\n", "CPU part\t: 0xd0b\n"
    assert "SIGILL" in preflight.known_bad("1.21.0", a72)[0]
    assert preflight.known_bad("1.21.0", a76) == []
    assert preflight.known_bad("1.21.1", a72) == []


def test_preflight_runs_alone(tmp_path):
    """It needs the standard library only, and parses as Python 3.6."""
    import ast

    tree = ast.parse(Path(preflight.__file__).read_text(), feature_version=(3, 6))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert names <= set(sys.stdlib_module_names)
    done = subprocess.run([sys.executable, "-S", preflight.__file__], capture_output=True, text=True)
    assert json.loads(done.stdout)["problems"]


@pytest.mark.parametrize(
    "name",
    ["ssh://-oProxyCommand=x", "pi@-oProxyCommand=x", "ssh://pi@-ox", "ssh://-ox@pi", "-ox@pi", "ssh://",
     "pi@", "ssh://[-ox]", "a@b@-ox"],
)  # fmt: skip
def test_a_user_or_host_that_ssh_would_take_for_an_option_is_refused(name):
    """OpenSSH stops these too; here they do not reach it."""
    with pytest.raises(DeviceError, match="not a board"):
        require_destination(name)


@pytest.mark.parametrize(
    ("text", "host", "path"),
    [
        ("pi@host:/srv/m", "pi@host", "/srv/m"),
        ("host:m", "host", "m"),
        ("pi@[::1]:/srv/m", "pi@::1", "/srv/m"),
        ("[fe80::1%eth0]:m", "fe80::1%eth0", "m"),
        ("ssh://pi@[::1]:2222/srv/m", "ssh://pi@[::1]:2222", "/srv/m"),
        ("pi@host:/srv/a@[b]:c", "pi@host", "/srv/a@[b]:c"),
    ],
)
def test_where_to_ship_is_read_as_scp_reads_it(text, host, path):
    """Names, IPv6 addresses in brackets, and URIs."""
    assert split_destination(text) == (host, path)
    require_destination(host)


@pytest.mark.parametrize("text", ["pi@[::1]", "pi@[]:/x", "pi@[::1]:", ":/x", "host:", "host", "ssh://h"])
def test_what_is_no_folder_on_a_board_is_refused(text):
    """An address without a path, or a path without an address."""
    with pytest.raises(ShipError, match="not a folder on a board"):
        split_destination(text)


@pytest.mark.parametrize("command", [bench, doctor, verify, profile])
def test_the_former_name_of_the_option_says_the_present_one(command):
    """--device means an accelerator in this field; here it is --board."""
    done = CliRunner().invoke(command, ["--device", "pi@host", "x.onnx"])
    assert done.exit_code == 2 and "--board" in done.output and "--device" in done.output
