"""Train a GRU and a 1-d CNN to name shoulder exercises from a smartwatch.

    pip install seglearn
    python -m examples.wearable --net wearable_gru
    edgeprune compress examples/checkpoints/wearable_cnn.safetensors \\
        --model examples.sequence_nets:wearable_cnn --data examples.wearable:data

The recordings travel in seglearn's package (Burns 2018, BSD-3-Clause): ten people,
seven exercises, both arms, six axes at 50 Hz. They are cut into windows of 128 steps
and split by person, so the test people were never seen: 1 to 6 are fitted, 7 is looked
at, 8 to 10 are tested. Windows overlap by three quarters: of one drawn at random all but a
twin would be among the fitted ones, so `data` keeps these parts apart. One person's
windows are too few to choose an epoch by (their accuracy swings by ten points between
epochs), so the last one is kept. With ten people in all, one person more or less moves the
accuracy by points: compare networks on the same split only.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.errors import DataError, EdgepruneError
from examples import sequence_nets, training
from examples.training import Part, Parts, Recipe

CHECKPOINTS = Path(__file__).parent / "checkpoints"
STEP = 32
VALIDATION_PEOPLE, TEST_PEOPLE = (7,), (8, 9, 10)
NETS: dict[str, Callable[[], nn.Module]] = {
    "wearable_gru": sequence_nets.wearable_gru,
    "wearable_cnn": sequence_nets.wearable_cnn,
}
RECIPE = Recipe(epochs=15, batch=64, optimizer="adamw", lr=2e-3, weight_decay=1e-2, choose="last")


def recordings() -> dict[str, Any]:
    """Seglearn's data set, read from its package without importing it (it wants pandas to start).

    Raises:
        DataError: seglearn is not installed.
    """
    spec = importlib.util.find_spec("seglearn")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the smartwatch data come with the package seglearn", tip="pip install seglearn")
    path = Path(spec.submodule_search_locations[0]) / "data" / "watch_dataset.npy"
    return dict(np.load(path, allow_pickle=True).item())  # a pickle, of a package one chose to install


def load() -> Parts:
    """Windows, float32 (samples, 128, 6), and exercise numbers, split by person."""
    return load_people()[0]


def load_people() -> tuple[Parts, list[np.ndarray]]:
    """The parts, and the person of every window of each."""
    watch = recordings()
    people = np.asarray(watch["subject"])
    parts, persons = [], []
    for chosen in (
        ~np.isin(people, VALIDATION_PEOPLE + TEST_PEOPLE),
        np.isin(people, VALIDATION_PEOPLE),
        np.isin(people, TEST_PEOPLE),
    ):
        windows, labels, worn_by = [], [], []
        for i in np.flatnonzero(chosen):
            series = np.asarray(watch["X"][i], np.float32)
            starts = range(0, len(series) - sequence_nets.WINDOW + 1, STEP)
            windows += [series[s : s + sequence_nets.WINDOW] for s in starts]
            labels += [int(watch["y"][i])] * len(starts)
            worn_by += [int(people[i])] * len(starts)
        parts.append(Part(torch.from_numpy(np.stack(windows)), torch.tensor(labels)))
        persons.append(np.array(worn_by))
    return Parts(*parts), persons


def data() -> dict[str, np.ndarray]:
    """What `--data examples.wearable:data` reads: six people to fit to, one to choose by, three to test."""
    found: dict[str, np.ndarray] = {}
    for end, part, people in zip(("", "_val", "_test"), *load_people(), strict=True):
        found |= {f"x{end}": part.x.numpy(), f"y{end}": part.y.numpy(), f"group{end}": people}
    return found


def worn_differently(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turn the watch on the wrist by up to some 20 degrees, vary the speed's scale, add sensor noise."""
    count = len(x)
    turn = torch.randn(count, 3, generator=generator) * 0.2
    zero = torch.zeros(count)
    skew = torch.stack(
        [zero, -turn[:, 2], turn[:, 1], turn[:, 2], zero, -turn[:, 0], -turn[:, 1], turn[:, 0], zero], 1
    )
    rotation = torch.linalg.matrix_exp(skew.view(count, 3, 3))
    accelerated, turned = x[..., :3] @ rotation, x[..., 3:] @ rotation
    scale = 1 + 0.15 * torch.randn(count, 1, 1, generator=generator)
    moved = torch.cat([accelerated, turned * scale], 2)
    return moved + 0.03 * torch.randn(x.shape, generator=generator)


def main(arguments: list[str] | None = None) -> None:
    """Parse, train, report the test accuracy, save."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.wearable", description="Train on smartwatch data."
    )
    parser.add_argument("--net", choices=sorted(NETS), default="wearable_gru")
    training.add_options(parser)
    options = parser.parse_args(arguments)
    recipe = training.with_options(RECIPE, options)
    try:
        parts = load()
        torch.manual_seed(recipe.seed)
        model = NETS[options.net]()
        fitted = training.fit(model, parts, recipe, worn_differently)
        facts = training.facts_of("examples.wearable", recipe, fitted, model, parts) | {"net": options.net}
        path = training.save(model, options.out or CHECKPOINTS / f"{options.net}.safetensors", facts)
    except EdgepruneError as error:
        raise training.fail(error) from None
    print(training.summary(facts, path))


if __name__ == "__main__":
    main()
