"""The command line: one click command per stage, loaded when it is called.

Only this package prints. The library raises EdgepruneError; here it becomes one line
on stderr and an exit code of its own. `edgeprune --help` imports click and this file.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import json
import os
import sys
from typing import Any

import click

COMMANDS = {
    "compress": ("edgeprune.cli.compress", "Compress a model within an accuracy budget; the whole pipeline."),
    "inspect": ("edgeprune.cli.inspect", "What can be removed from a model, and what cannot, with reasons."),
    "score": ("edgeprune.cli.score", "Score every component and connection with one criterion."),
    "prune": ("edgeprune.cli.prune", "Remove components by score or by a given mask; writes a .pt2."),
    "apply": ("edgeprune.cli.apply", "Slice your own class by the recipe of a run."),
    "export": ("edgeprune.cli.export", "Export a model to ONNX, simplified and parity-checked."),
    "quantise": (
        "edgeprune.cli.quantise",
        "Turn an ONNX file into 8 bits where that is faster and exact enough.",
    ),
    "bench": ("edgeprune.cli.bench", "Time ONNX files on this machine or a device, in paired rounds."),
    "profile": ("edgeprune.cli.profile", "Measure a network's layers at many widths, for planning."),
    "pick": ("edgeprune.cli.pick", "List a finished run's choices, or take another than the budget did."),
    "finish": ("edgeprune.cli.finish", "Export, prove and bound a pruned network that you trained."),
    "explain": ("edgeprune.cli.explain", "Why a channel was removed or kept in a finished run."),
    "targets": ("edgeprune.cli.targets", "List and explain target devices."),
    "verify": ("edgeprune.cli.device", "Prove that a file computes on ARM what it computes here."),
    "ship": ("edgeprune.cli.device", "Deliver a finished run to a device, with rollback."),
    "doctor": ("edgeprune.cli.device", "What is installed, what is missing, what to do."),
}
INTERRUPTED = 130


class Lazy(click.Group):
    """A group that knows its commands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            near = difflib.get_close_matches(cmd_name, COMMANDS, 1, cutoff=0.5)
            if near:
                ctx.fail(f"No such command '{cmd_name}'. Did you mean {near[0]}?")
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgeprune")
def cli() -> None:
    """Compress a trained model for an edge device, with proof."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit; every expected failure is one line and its own code."""
    from edgeprune.errors import EdgepruneError, OutputError

    # Idle OpenMP threads that spin take the core from the one that works as soon as anything else
    # runs: a training step took 6 times as long on a busy two-core machine. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        result: Any = cli.main(args=arguments, standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        kept = "what was finished is kept; run the same command again to go on"
        click.echo(f"interrupted: {kept}", err=True)
        code = INTERRUPTED
        _as_json(arguments, "Interrupted", "interrupted", kept, code, "interrupted")
    except click.ClickException as wrong:
        wrong.show()
        code = wrong.exit_code
        _as_json(arguments, type(wrong).__name__, wrong.format_message(), "", code, "usage")
    except EdgepruneError as error:
        code = _show(error, arguments)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        full = OutputError(f"cannot write: {error.strerror}{where}", tip="free some space or choose --output")
        code = _show(full, arguments)
    sys.exit(code)


def _show(error: Any, arguments: list[str] | None) -> int:
    click.echo(f"edgeprune: {type(error).__name__}: {error}", err=True)
    _as_json(arguments, type(error).__name__, error.message, error.tip, error.exit_code, error.code)
    return int(error.exit_code)


def _as_json(
    arguments: list[str] | None, kind: str, message: str, tip: str, exit_code: int, code: str
) -> None:
    """With --json a failure is one JSON document on stdout too: whoever reads it need not parse prose."""
    if "--json" in (sys.argv[1:] if arguments is None else arguments):
        click.echo(
            json.dumps(
                {
                    "error": {
                        "type": kind,
                        "message": message,
                        "tip": tip,
                        "exit_code": exit_code,
                        "code": code,
                    }
                }
            )
        )
