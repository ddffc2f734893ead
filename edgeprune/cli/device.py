"""`edgeprune verify`, `ship` and `doctor`: outputs elsewhere, delivery, and what is missing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgeprune.deploy.remote import Board
    from edgeprune.records import Finding, VerifyResult

Command = TypeVar("Command", bound=Callable[..., Any])


class BoardCommand(click.Command):
    """A command with --board, which answers the former name of that option with the present one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as wrong:
            if wrong.option_name != "--device":
                raise
            # click offers near spellings only, so the sentence is given whole
            message = f"{wrong.message} Did you mean --board?"
            raise click.NoSuchOption(wrong.option_name, message, ctx=ctx) from None


def board_options(command: Command) -> Command:
    """The options of every command that connects to a board."""
    for option in (
        click.option("--board-python", default="python3", show_default=True, help="Python on the board."),
        click.option("--ssh-config", type=click.Path(path_type=Path), help="Another ssh_config than yours."),
        click.option("--accept-new-host-key", is_flag=True, help="Trust an unknown host key once."),
    ):
        command = option(command)
    return command


def open_board(name: str, python: str, config: Path | None, accept_new: bool) -> Board:
    """The board behind an ssh name; leaving its `remote` ends the connection."""
    from edgeprune.deploy.remote import Board
    from edgeprune.deploy.ssh import Remote

    return Board(Remote(name, config=config, accept_new=accept_new), python)


@click.command(cls=BoardCommand)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--emulate", "cpus", multiple=True, metavar="CORE", help="cortex-a53, -a72, -a76; repeatable.")
@click.option("--board", "destination", help="A board, as for ssh: pi@raspberrypi.")
@click.option("--inputs", type=click.Path(path_type=Path), help="Recorded inputs (npz), such as golden.npz.")
@click.option("--samples", default=4, show_default=True, help="Random inputs to compare without --inputs.")
@click.option("--seed", default=0, show_default=True)
@click.option("--shape", "shapes", multiple=True, help="NAME=1,3,224,224 for inputs with free dimensions.")
@click.option("--count/--no-count", default=True, help="Count emulated instructions of an inference.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
@board_options
def verify(
    model: Path,
    cpus: tuple[str, ...],
    destination: str | None,
    inputs: Path | None,
    samples: int,
    seed: int,
    shapes: tuple[str, ...],
    count: bool,
    as_json: bool,
    board_python: str,
    ssh_config: Path | None,
    accept_new_host_key: bool,
) -> None:
    """Prove that an ONNX file computes on ARM what it computes here.

    --emulate runs the real aarch64 onnxruntime under QEMU and counts instructions; it never shows
    a time. --board compares with a board over ssh.
    """
    from edgeprune.deploy.verify import verify_emulated, verify_on_board
    from edgeprune.records import to_json

    if not cpus and destination is None:
        raise click.UsageError("give --emulate cortex-a72 or --board pi@host")
    settings: dict[str, Any] = {"inputs": inputs, "samples": samples, "seed": seed, "shapes": shapes}
    results = []
    for cpu in cpus:
        say(f"running {model.name} on the emulated {cpu} …")
        results.append(verify_emulated(model, cpu, count=count, **settings))
    if destination is not None:
        board = open_board(destination, board_python, ssh_config, accept_new_host_key)
        with board.remote:
            results.append(verify_on_board(model, board, **settings))
    click.echo(json.dumps(to_json(results), indent=1) if as_json else "\n".join(map(_verified, results)))


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.argument("destination", required=False, metavar="[USER@HOST:/PATH]")
@click.option("--keep", default=3, show_default=True, help="Releases to keep on the board.")
@click.option("--rollback", "back", is_flag=True, help="Make the previous release current again.")
@click.option("--list", "listing", is_flag=True, help="Show the releases on the board.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Only write the bundle, to this new folder.")
@click.option("--name", help="What to call the model; otherwise the report's or the folder's name.")
@click.option("--architecture", help="aarch64, x86_64 or any; else the target's.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
@board_options
def ship(
    folder: Path | None,
    destination: str | None,
    keep: int,
    back: bool,
    listing: bool,
    bundle: Path | None,
    name: str | None,
    architecture: str | None,
    as_json: bool,
    board_python: str,
    ssh_config: Path | None,
    accept_new_host_key: bool,
) -> None:
    """Deliver a run to a board over ssh: upload, prove there, switch in one step.

    \b
    edgeprune ship RUN pi@host:/srv/model             ship
    edgeprune ship --rollback pi@host:/srv/model      the release before
    edgeprune ship --list pi@host:/srv/model          what is there
    edgeprune ship RUN --bundle FOLDER                only write the bundle
    """
    from edgeprune.deploy.bundle import open_bundle, write_bundle
    from edgeprune.deploy.shipping import list_releases, rollback
    from edgeprune.deploy.shipping import ship as deliver
    from edgeprune.records import to_json

    if (back or listing) and destination is None and folder is not None:
        folder, destination = None, str(folder)
    if bundle is not None and folder is not None and destination is None:
        bundled = open_bundle(folder, name=name, architecture=architecture)
        write_bundle(bundled, bundle)
        done: Any = {
            "name": bundled.name,
            "identity": bundled.identity,
            "path": str(bundle),
            "bytes": bundled.bytes,
        }
        text = f"{bundle}: {bundled.name}, {bundled.bytes:,} bytes, release {bundled.identity[:12]}"
        click.echo(json.dumps(done, indent=1) if as_json else text)
        return
    if destination is None or (folder is None) != (back or listing) or (back and listing):
        raise click.UsageError("give RUN and user@host:/path, or --rollback or --list with user@host:/path")
    opened = None if folder is None else open_bundle(folder, name=name, architecture=architecture)
    host, path = split_destination(destination)
    board = open_board(host, board_python, ssh_config, accept_new_host_key)
    with board.remote:
        say(f"looking at {host} …")
        if listing:
            releases = list_releases(board, path)
            click.echo(json.dumps(releases, indent=1) if as_json else "\n".join(_releases(releases)))
            return
        done = rollback(board, path) if opened is None else deliver(opened, board, path, keep=keep)
    if as_json:
        click.echo(json.dumps(to_json(done), indent=1))
        return
    how = "rolled back to" if back else "shipped" if done.uploaded else "was there already, proven again:"
    click.echo(f"{done.destination}:{done.path}/current: {how} {done.name}, release {done.identity[:12]}")
    click.echo(
        f"recorded outputs there within {done.smoke_max_abs:.3g}; before: {(done.previous or 'none')[:12]}"
    )


@click.command(cls=BoardCommand)
@click.option("--board", "destination", help="Also look at a board, as for ssh: pi@raspberrypi.")
@click.option("--make-venv", is_flag=True, help="Make an environment with onnxruntime on the board.")
@click.option("--wheels", type=click.Path(path_type=Path), help="Wheels for a board without network.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
@board_options
def doctor(
    destination: str | None,
    make_venv: bool,
    wheels: Path | None,
    as_json: bool,
    board_python: str,
    ssh_config: Path | None,
    accept_new_host_key: bool,
) -> int:
    """Say what is installed, what is missing and what to do; exit code 1 when something needed is missing."""
    from edgeprune.deploy.doctor import diagnose_board, diagnose_host
    from edgeprune.deploy.remote import make_environment
    from edgeprune.records import to_json

    if (make_venv or wheels) and destination is None:
        raise click.UsageError("--make-venv and --wheels need --board")
    findings = diagnose_host()
    if destination is not None:
        board = open_board(destination, board_python, ssh_config, accept_new_host_key)
        with board.remote:
            if make_venv:
                say(f"making an environment on {destination} …")
                board.python = make_environment(board, wheels)
                click.echo(f"made; use it with --board-python {board.python}", err=True)
            findings += diagnose_board(board)
    click.echo(json.dumps(to_json(findings), indent=1) if as_json else "\n".join(_findings(findings)))
    return 1 if any(finding.needed and not finding.ok for finding in findings) else 0


def say(text: str) -> None:
    """Tell a person at a terminal what takes so long; scripts and logs are spared."""
    if sys.stderr.isatty():
        click.echo(text, err=True)


def split_destination(text: str) -> tuple[str, str]:
    """user@host:/path as scp takes it, user@[::1]:/path, or ssh://user@host:port/path."""
    from edgeprune.errors import ShipError

    if text.startswith("ssh://"):
        host, slash, path = text[len("ssh://") :].partition("/")
        host, path = f"ssh://{host}", slash + path
    else:
        user, at, place = text.partition("@") if "@" in text.partition(":")[0] else ("", "", text)
        if place.startswith("["):  # an IPv6 address, which ssh itself takes without brackets
            address, _, path = place[1:].partition("]:")
            host = f"{user}{at}{address}" if address else ""
        else:
            host, _, path = text.partition(":")
    if not host or not path.strip("/"):
        raise ShipError(f"not a folder on a board: {text!r}", tip="write it as user@host:/path")
    return host, path


def _verified(result: VerifyResult) -> str:
    parity = result.parity
    agreement = "" if parity.top1_agreement is None else f", top-1 {parity.top1_agreement:.0%}"
    line = f"{result.model.name} on {result.where}: outputs agree within {parity.max_abs:.3g}"
    line += f" (allowed {parity.atol:.3g}, {parity.samples} samples{agreement})"
    if result.instructions is not None:
        line += f"; {result.instructions.per_inference / 1e6:.3f} M emulated instructions an inference"
    return line


def _releases(listing: dict[str, Any]) -> list[str]:
    lines = [f"{listing['path']}"]
    for entry in listing["releases"]:
        mark = "*" if entry["id"] == listing["current"] else " "
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry["time"]))
        lines.append(f"{mark} {entry['id'][:12]}  {when}  {entry['bytes']:>12,} bytes  {entry['name']}")
    return [*lines, "* is current"] if listing["current"] else lines


def _findings(findings: list[Finding]) -> list[str]:
    width = max(len(finding.what) for finding in findings)
    marks = {(True, True): "ok", (True, False): "ok", (False, True): "MISSING", (False, False): "-"}
    lines = []
    for finding in findings:
        tip = f"  → {finding.tip}" if finding.tip else ""
        mark = marks[finding.ok, finding.needed]
        lines.append(f"{mark:8}{finding.what:{width}}  {finding.found}{tip}")
    return lines
