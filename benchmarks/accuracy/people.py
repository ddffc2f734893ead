"""How well a validation part predicts the loss on unseen people: its loss beside that of test people.

    python -m benchmarks.accuracy.people                # every row that is not measured yet
    python -m benchmarks.accuracy.people person-3       # that row again

wearable_cnn, whose weights were trained on windows of people 1 to 6, is cut to 0.3 of its MACs by L2,
refitted and fine-tuned on everything except a validation part. The part is drawn at random from windows
that overlap by three quarters (random-SEED), or it is one complete person (person-N). The three test people
are the same for all rows. Results go to results/people.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.recording import known_rows, record, table
from edgeprune.coupling.analysis import analyse
from edgeprune.criteria import Context, score
from edgeprune.data import Dataset, open_data, split
from edgeprune.data.targets import take
from edgeprune.frontend.load import load_model
from edgeprune.graph.execution import batches, outputs
from edgeprune.graph.trace import Trace, trace
from edgeprune.recovery import FineTune, finetune, recover_closed_form
from edgeprune.search.groups import uniform
from edgeprune.surgery.cut import retrace
from edgeprune.tasks.bounds import paired_drop
from edgeprune.tasks.choose import choose_task
from examples import wearable

SHARE, BATCH, CALIBRATION = 0.3, 128, 1024
ROWS = [*(f"random-{seed}" for seed in range(3)), *(f"person-{n}" for n in range(1, 8))]
COLUMNS = ["validation", "seen_by_dense", "samples", "dense_validation", "drop_validation", "drop_test"]


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing or asked for, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.people", description=__doc__.splitlines()[0]
    )
    parser.add_argument("rows", nargs="*", help="measure these again (random-SEED, person-N)")
    parser.add_argument("--table", action="store_true", help="only print what is measured")
    options = parser.parse_args(arguments)
    if unknown := {*options.rows} - {*ROWS}:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    torch.set_num_threads(1)
    known = {row["validation"]: row for row in known_rows("people")}
    for name in [] if options.table else options.rows or [name for name in ROWS if name not in known]:
        known[name] = measured(name)
        record("people", [known[n] for n in ROWS if n in known])
    print(table([shown(known[n]) for n in ROWS if n in known], COLUMNS))
    return 0


def measured(name: str) -> dict[str, Any]:
    """Cut, refit and fine-tune without the validation part; the losses on it and on the test people."""
    arrays = wearable.data()
    people = np.concatenate([arrays["group"], arrays["group_val"]])
    dataset = open_data({
        "x": np.concatenate([arrays["x"], arrays["x_val"]]), "x_test": arrays["x_test"],
        "y": np.concatenate([arrays["y"], arrays["y_val"]]), "y_test": arrays["y_test"],
    })  # fmt: skip
    kind, _, number = name.partition("-")
    if kind == "random":
        parts = split(dataset, seed=int(number))
        train, calibration, validation = parts.train, parts.calibration, parts.validation
    else:
        validation = np.flatnonzero(people == int(number))
        rest = np.random.default_rng(0).permutation(np.flatnonzero(people != int(number)))
        train, calibration = np.sort(rest[CALIBRATION:]), np.sort(rest[:CALIBRATION])
    loaded = load_model(
        Path("examples/checkpoints/wearable_cnn.safetensors"),
        factory="examples.sequence_nets:wearable_cnn", input_shapes=[(128, 6)],
    )  # fmt: skip
    assert loaded.module is not None
    dense = trace(loaded.module, loaded.example_inputs)
    small = smaller(dense, dataset, train, calibration, validation)
    assert dataset.test_indices is not None
    row: dict[str, Any] = {
        "validation": name,
        "seen_by_dense": kind == "random" or int(number) not in wearable.VALIDATION_PEOPLE,
        "samples": len(validation),
    }
    for part, at in (("validation", validation), ("test", dataset.test_indices)):
        before, after = (right(t, dataset, at) for t in (dense, small))
        row[f"dense_{part}"] = float(before.mean())
        row[f"drop_{part}"] = paired_drop(before, after)
    return row


def smaller(
    dense: Trace, dataset: Dataset, train: np.ndarray, calibration: np.ndarray, validation: np.ndarray
) -> Trace:
    """As a round of `compress` makes it: cut, refitted, fine-tuned with the best epoch on validation."""
    couplings = analyse(dense)
    rank = score("l2", Context(dense, couplings, None, 0)).rank
    removed = uniform(couplings, rank, couplings.macs, SHARE * couplings.macs())
    given = [inputs for inputs, _ in batches(dataset, calibration, BATCH)]
    cut = recover_closed_form(dense, couplings, removed, given)[0]
    teacher = outputs(dense.graph, dataset, train, BATCH)
    task = choose_task("classification", (), teacher, take(dataset.targets, train)).task

    def validate(graph: torch.fx.GraphModule) -> float:
        assert dataset.labels is not None
        found = outputs(graph, dataset, validation, BATCH)[0].argmax(1)
        return float((found == dataset.labels[validation]).mean())

    return retrace(finetune(cut, dataset, train, teacher, task, validate, FineTune(norms="training"))[0])


def right(net: Trace, dataset: Dataset, at: np.ndarray) -> np.ndarray:
    assert dataset.labels is not None
    correct: np.ndarray = outputs(net.graph, dataset, at, BATCH)[0].argmax(1) == dataset.labels[at]
    return correct.astype(np.float64)


def shown(row: dict[str, Any]) -> dict[str, str]:
    out = {k: str(row[k]) for k in ("validation", "seen_by_dense", "samples")}
    out["dense_validation"] = f"{row['dense_validation']:.1%}"
    for k in ("drop_validation", "drop_test"):
        drop = row[k] if isinstance(row[k], dict) else vars(row[k])
        out[k] = "{value:+.2f} ({low:+.2f}…{high:+.2f})".format(**drop)
    return out


if __name__ == "__main__":
    raise SystemExit(main())
