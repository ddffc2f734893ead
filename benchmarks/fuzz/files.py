"""Mutate every kind of file that the tool reads; anything but success or an EdgepruneError is a failure.

    python -m benchmarks.fuzz.files 20000                 # resumes where results/fuzz_files.json ends
    python -m benchmarks.fuzz.files 500 --kinds pt2,npz   # of these kinds alone
    python -m benchmarks.fuzz.files --input pt2/17        # one input again, with its traceback
    python -m benchmarks.fuzz.files --again               # only the inputs that failed

An input is a file of the corpus (corpus) with one to four changes (mutations), fixed by its kind and
number, read as a command of the tool reads it (kinds) in a worker process (worker). It fails by any other
exception than the tool's, by taking more than a minute, by more than 1 GiB above what the process needs for
unchanged files, and by ending the process. Memory is the peak of resident pages, of the worker and its
children: an address-space limit would count what torch reserves. Failing inputs are kept below
build/fuzz-files/failures, three for each place in the code.

Workers start with every unchanged file; a kind whose files are not accepted then is named and not counted,
since changes of what is refused anyway test nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.fuzz import corpus
from benchmarks.fuzz.kinds import KINDS, prepare, use_corpus
from benchmarks.recording import (
    RESULTS,
    ROOT,
    content_hash,
    provenance,
    read_result,
    sources,
    table,
    write_result,
)

WORK = ROOT / "build" / "fuzz-files"
RESULT = RESULTS / "fuzz_files.json"
SECONDS, MIB = 60.0, 1024  # of one input
LOT, LIFE = 40, 800  # inputs between two writings of the result, and in one worker
KEPT = 3  # inputs kept of one place in the code
BLANK = {"inputs": 0, "accepted": 0, "refused": 0, "failures": 0, "peak_mib": 0, "slowest_seconds": 0.0}
COLUMNS = ["kind", *BLANK]


class Worker:
    """A child process that reads inputs within limits; it is replaced when it breaks one."""

    def __init__(self, seeds: Path, program: tuple[str, ...] = ("-m", "benchmarks.fuzz.worker")) -> None:
        self.seeds, self.done, self.baseline = seeds, 0, 0.0
        self.scratch = Path(tempfile.mkdtemp(prefix="fuzz-files-"))
        command = [sys.executable, *program, str(seeds)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
            start_new_session=True,
        )  # fmt: skip
        self.answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put("")

    def warm_up(self, kinds: list[str]) -> dict[str, str]:
        """Read the unchanged files, which sets the memory that they need; gives what went wrong by kind."""
        wrong = {}
        for kind in kinds:
            row = self.run(kind, None, 10 * SECONDS, float("inf"))
            if row["outcome"] != ("refused" if KINDS[kind].refused else "accepted"):
                wrong[kind] = (
                    f"unchanged files are {row['outcome']}: {row.get('what', '')} {row.get('where', '')}"
                )
            self.baseline = max(self.baseline, row["peak_mib"])
        return wrong

    def run(self, kind: str, index: int | None, seconds: float = SECONDS, mib: float = MIB) -> dict[str, Any]:
        """The row of one input, which this process prepares: what that takes counts for no limit."""
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        changed = prepare(kind, index, self.seeds, folder)
        row = self.ask({"kind": kind, "folder": str(folder)}, seconds, mib)
        shutil.rmtree(folder, ignore_errors=True)
        return row | {"index": index, "file": changed}

    def ask(self, task: dict[str, Any], seconds: float, mib: float) -> dict[str, Any]:
        """The answer to a task; a worker that broke a limit is ended and must be replaced (`alive`)."""
        assert self.process.stdin is not None
        row: dict[str, Any] = {"kind": task["kind"], "outcome": "failed", "seconds": 0.0, "peak_mib": 0}
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
        began, peak = time.monotonic(), 0.0
        while True:
            with contextlib.suppress(queue.Empty):
                answer = self.answers.get(timeout=0.03)
                break
            peak = max(peak, resident(self.process.pid))
            row |= {"seconds": round(time.monotonic() - began, 1), "peak_mib": round(peak)}
            if row["seconds"] > seconds:
                self.close()
                return row | {"what": f"no answer within {seconds:g} s", "where": "time"}
            if peak > self.baseline + mib:
                self.close()
                return row | {"what": f"{peak - self.baseline:.0f} MiB above the baseline", "where": "memory"}
        self.done += 1
        if not answer:
            self.process.wait()
            return row | {"what": f"the process ended with {self.process.returncode}", "where": "process"}
        row = json.loads(answer)
        row["peak_mib"] = max(row["peak_mib"], round(peak))
        if row["peak_mib"] > self.baseline + mib and row["outcome"] != "failed":
            over = row["peak_mib"] - self.baseline
            row |= {"outcome": "failed", "what": f"{over:.0f} MiB above the baseline", "where": "memory"}
        return row

    def alive(self) -> bool:
        """Whether the worker can take another input."""
        return self.process.poll() is None and self.done < LIFE

    def close(self) -> None:
        """End the worker and what it started; its scratch folder goes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        self.process.wait()
        self.reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what was not delivered is lost with the worker
                pipe.close()  # type: ignore[union-attr]
        shutil.rmtree(self.scratch, ignore_errors=True)


def resident(pid: int) -> float:
    """Resident memory of a process and its descendants, MiB."""
    total = 0.0
    with contextlib.suppress(OSError, IndexError, ValueError):
        total = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            total += resident(int(child))
    return total


def schedule(count: int, kinds: list[str], done: dict[str, int]) -> list[tuple[str, int]]:
    """The next inputs, `count` in all kinds together, by share, kinds interleaved in lots."""
    shares = sum(KINDS[kind].share for kind in kinds)
    todo = {k: max(0, round(count * KINDS[k].share / shares) - done.get(k, 0)) for k in kinds}
    lots = []
    for kind, left in todo.items():
        first = done.get(kind, 0)
        numbers = range(first, first + left)
        lots += [
            ((at + 0.5) / max(left, 1), kind, list(numbers[at : at + LOT])) for at in range(0, left, LOT)
        ]
    return [(kind, index) for _, kind, lot in sorted(lots) for index in lot]


def keep(row: dict[str, Any], seeds: Path) -> str:
    """Keep the input of a failure; gives its folder."""
    folder = WORK / "failures" / f"{row['kind']}-{row['index']}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    changed = prepare(row["kind"], row["index"], seeds, folder)
    (folder / "README").write_text(f"{changed} was changed\n{row['what']}\n{row['where']}\n")
    return str(folder.relative_to(ROOT))


def enter(found: dict[str, Any], row: dict[str, Any], seeds: Path) -> None:
    """Count an input in the result."""
    kind = found["by_kind"].setdefault(row["kind"], dict(BLANK))
    kind["inputs"] += 1
    kind["failures" if row["outcome"] == "failed" else row["outcome"]] += 1
    kind["peak_mib"] = max(kind["peak_mib"], row["peak_mib"])
    kind["slowest_seconds"] = max(kind["slowest_seconds"], row["seconds"])
    if row["outcome"] == "failed":
        same = [f for f in found["failures"] if (f["kind"], f["where"]) == (row["kind"], row["where"])]
        entry = {k: row[k] for k in ("kind", "index", "what", "where")}
        if len(same) < KEPT:
            entry["input"] = keep(row, seeds)
            print(f"FAILED {row['kind']}/{row['index']} {row['where']}: {row['what']}", flush=True)
        found["failures"].append(entry)


def write(found: dict[str, Any]) -> None:
    """The result: a row per kind, a row per place that failed."""
    rows = [{"kind": k, **found["by_kind"][k]} for k in KINDS if k in found["by_kind"]]
    places = Counter((f["kind"], f["where"]) for f in found["failures"])
    first = {(f["kind"], f["where"]): f for f in reversed(found["failures"])}
    failing = [{**first[key], "times": count} for key, count in places.most_common()]
    summary = {
        "benchmark": "fuzz_files", **provenance(), "code": found["code"],
        "inputs": sum(row["inputs"] for row in rows), "failures": sum(row["failures"] for row in rows),
        "rows": rows, "failing": failing,
    }  # fmt: skip
    write_result(RESULT, summary, {"cells": {"failures": found["failures"]}})


def read() -> dict[str, Any]:
    """The result so far."""
    if not RESULT.exists():
        return {"by_kind": {}, "failures": [], "code": {}}
    known = read_result(RESULT)
    by_kind = {row["kind"]: {k: v for k, v in row.items() if k != "kind"} for row in known["rows"]}
    return {"by_kind": by_kind, "failures": known["cells"]["failures"], "code": known["code"]}


def fuzz(
    inputs: list[tuple[str, int]], found: dict[str, Any], seeds: Path, workers: int = 1
) -> dict[str, str]:
    """Read the inputs and count them; the result is written after every lot.

    Gives the kinds whose unchanged files are not accepted, with what went wrong: no input of them is counted.
    Inputs are handed out in order; with several workers they are counted as they end, so that after a kill
    a few numbers of a kind may be read again and others not at all.
    """
    wrong: dict[str, str] = {}
    kinds = list(dict.fromkeys(kind for kind, _ in inputs))
    now = content_hash(sources([ROOT / "edgeprune"]))
    left, lock, counted = iter(inputs), threading.Lock(), itertools.count(1)

    def read_on() -> None:
        worker: Worker | None = None
        try:
            while True:
                with lock:
                    kind, index = next(left, ("", 0))
                if not kind:
                    return
                if kind in wrong:
                    continue
                if worker is None or not worker.alive():
                    if worker is not None:
                        worker.close()
                    worker = Worker(seeds)
                    refused = worker.warm_up([k for k in kinds if k not in wrong])
                    with lock:
                        wrong.update(refused)
                    if kind in wrong:
                        continue
                row = worker.run(kind, index)
                with lock:
                    enter(found, row, seeds)
                    found["code"][now] = found["code"].get(now, 0) + 1
                    if (number := next(counted)) % LOT == 0:
                        write(found)
                        failures = len(found["failures"])
                        print(f"{number} of {len(inputs)}, {failures} failures", file=sys.stderr, flush=True)
        finally:
            if worker is not None:
                worker.close()

    with ThreadPoolExecutor(workers) as pool:
        for reader in [pool.submit(read_on) for _ in range(workers)]:
            reader.result()
    write(found)
    return wrong


def again(found: dict[str, Any], seeds: Path) -> dict[str, str]:
    """Read what failed once more and forget what no longer does."""
    failed, found["failures"] = found["failures"], []
    for entry in failed:
        counts = found["by_kind"][entry["kind"]]
        counts["failures"] -= 1
        counts["inputs"] -= 1
    wrong = fuzz([(entry["kind"], entry["index"]) for entry in failed], found, seeds)
    for entry in (e for e in failed if e["kind"] in wrong):  # not tried: stays a failure
        found["failures"].append(entry)
        counts = found["by_kind"][entry["kind"]]
        counts["failures"] += 1
        counts["inputs"] += 1
    write(found)
    return wrong


def one(name: str, seeds: Path) -> int:
    """Read one input in this process and print its traceback."""
    kind, _, index = name.rpartition("/")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-files-"))
    use_corpus(seeds)
    print(f"{folder}: {prepare(kind, int(index), seeds, folder)} was changed")
    os.chdir(folder)
    try:
        KINDS[kind].act(folder)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Fuzz, print a row per kind and every place that failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz.files", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "count", type=int, nargs="?", default=20_000, help="inputs in all, earlier ones counted"
    )
    parser.add_argument("--kinds", type=lambda s: s.split(","), default=[*KINDS], help=", ".join(KINDS))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes [every core]")
    parser.add_argument("--input", metavar="KIND/INDEX", help="only this input, in this process")
    parser.add_argument("--again", action="store_true", help="only what failed before")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args(arguments)
    if unknown := {*options.kinds} - {*KINDS}:
        parser.error(f"no kind {', '.join(sorted(unknown))}")
    seeds, found = WORK / "corpus", read()
    wrong: dict[str, str] = {}
    if not options.table:
        corpus.build(seeds)
        use_corpus(seeds)
        if options.input:
            return one(options.input, seeds)
        if options.again:
            wrong = again(found, seeds)
        else:
            done = {kind: row["inputs"] for kind, row in found["by_kind"].items()}
            wrong = fuzz(schedule(options.count, options.kinds, done), found, seeds, options.workers)
    print(table([{"kind": k, **row} for k, row in found["by_kind"].items()], COLUMNS))
    for (kind, where), count in Counter((f["kind"], f["where"]) for f in found["failures"]).most_common():
        first = next(f for f in found["failures"] if (f["kind"], f["where"]) == (kind, where))
        print(f"{kind} {where}, {count} times, first {kind}/{first['index']}: {first['what']}")
    for kind, text in wrong.items():
        print(f"{kind} was not fuzzed, {text}")
    return 1 if found["failures"] or wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
