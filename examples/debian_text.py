"""Train a small transformer to tell a Debian package's section from its one-line description.

    python -m examples.debian_text
    edgeprune compress examples/checkpoints/debian_text.safetensors \\
        --model examples.sequence_nets:debian_text --data examples.debian_text:data

The texts are those of `apt-cache dumpavail` (Debian and derivatives), the labels its 16
largest sections. Packages of one source share a part: their descriptions repeat each
other. A source's part follows from a hash of its name: 10% are tested, 10% choose the
epoch. Words are the 3,000 most frequent of the training part, kept in
`checkpoints/debian_text.words.json`; other words share 1,000 hash buckets.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import re
import subprocess
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from edgeprune.errors import DataError, EdgepruneError
from examples import training
from examples.sequence_nets import BUCKETS, LENGTH, SECTIONS, WORDS, debian_text
from examples.training import Part, Parts, Recipe

CHECKPOINTS = Path(__file__).parent / "checkpoints"
VOCABULARY = CHECKPOINTS / "debian_text.words.json"
RECIPE = Recipe(epochs=12, batch=128, optimizer="adamw", lr=2e-3, weight_decay=5e-2, label_smoothing=0.1)
FIELDS = re.compile(r"^(Package|Source|Section|Description): (.*)$", re.M)
TOKENS = re.compile(r"[a-z0-9+#]+|[^\sa-z0-9]")


class Text(NamedTuple):
    """One package: the source it is built from, its section, its description."""

    source: str
    section: str
    description: str


class Vocabulary(NamedTuple):
    """Known words, most frequent first, and the sections in the order of the outputs."""

    words: list[str]
    sections: list[str]


def read_packages(dump: Path | None = None) -> list[Text]:
    """Packages with a description, one for each text, sorted; from `dump` or from `apt-cache dumpavail`.

    Raises:
        DataError: neither can be read.
    """
    try:
        if dump:
            raw = dump.read_text()
        else:
            raw = subprocess.run(
                ["apt-cache", "dumpavail"], capture_output=True, text=True, check=True
            ).stdout
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        tip = "run on Debian after apt-get update, or give a Packages file with --data"
        raise DataError(f"cannot read package descriptions: {error}", tip=tip) from error
    found: dict[str, Text] = {}
    for block in raw.split("\n\n"):
        fields: dict[str, str] = dict(FIELDS.findall(block))
        if "Description" in fields and "Section" in fields:
            source = fields.get("Source", fields.get("Package", "")).split(" ")[0]
            found.setdefault(fields["Description"], Text(source, fields["Section"], fields["Description"]))
    if not found:
        raise DataError("no package descriptions found", tip="run apt-get update, or give --data FILE")
    return sorted(found.values())


def part_of(source: str) -> str:
    """'train', 'validation' or 'test', from a hash of the source package's name."""
    tenth = hashlib.sha256(source.encode()).digest()[0] * 10 // 256
    return {0: "test", 1: "validation"}.get(tenth, "train")


def learn_vocabulary(texts: list[Text]) -> Vocabulary:
    """The largest sections, and the most frequent words of the training part of those sections."""
    counts = collections.Counter(text.section for text in texts)
    sections = sorted(name for name, _ in counts.most_common(SECTIONS))
    words: collections.Counter[str] = collections.Counter()
    for text in texts:
        if text.section in sections and part_of(text.source) == "train":
            words.update(TOKENS.findall(text.description.lower()))
    ranked = sorted(words, key=lambda word: (-words[word], word))
    return Vocabulary(ranked[:WORDS], sections)


def encode(description: str, numbers: dict[str, int]) -> list[int]:
    """Token numbers, `LENGTH` of them: 0 pads, 1 to `WORDS` are words, then the hash buckets."""
    tokens = [
        numbers[word] if word in numbers else 1 + WORDS + zlib.crc32(word.encode()) % BUCKETS
        for word in TOKENS.findall(description.lower())[:LENGTH]
    ]
    return tokens + [0] * (LENGTH - len(tokens))


def encode_all(texts: list[Text], vocabulary: Vocabulary) -> Parts:
    """Tokens, int64 (samples, 20), and section numbers of the three parts."""
    numbers = {word: i + 1 for i, word in enumerate(vocabulary.words)}
    rows: dict[str, list[tuple[list[int], int]]] = {name: [] for name in Parts._fields}
    for text in texts:
        if text.section in vocabulary.sections:
            row = encode(text.description, numbers), vocabulary.sections.index(text.section)
            rows[part_of(text.source)].append(row)
    if not all(rows.values()):
        raise DataError(f"{len(texts)} descriptions are too few to fill three parts")
    return Parts(
        *(Part(torch.tensor([x for x, _ in r]), torch.tensor([y for _, y in r])) for r in rows.values())
    )


def read_vocabulary(path: Path = VOCABULARY) -> Vocabulary:
    """The vocabulary that the committed checkpoint was trained with."""
    try:
        return Vocabulary(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"cannot read vocabulary '{path}': {error}", tip="train first") from error


def data() -> dict[str, np.ndarray]:
    """What `edgeprune compress --data examples.debian_text:data` reads: x, y and x_test, y_test."""
    train, validation, test = encode_all(read_packages(), read_vocabulary())
    return {
        "x": torch.cat([train.x, validation.x]).numpy(),
        "y": torch.cat([train.y, validation.y]).numpy(),
        "x_test": test.x.numpy(),
        "y_test": test.y.numpy(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Parse, train, report the test accuracy, save checkpoint and vocabulary."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.debian_text", description="Train on package texts."
    )
    parser.add_argument("--data", type=Path, help="a Packages file instead of `apt-cache dumpavail`")
    training.add_options(parser)
    options = parser.parse_args(arguments)
    recipe = training.with_options(RECIPE, options)
    try:
        texts = read_packages(options.data)
        vocabulary = learn_vocabulary(texts)
        parts = encode_all(texts, vocabulary)
        torch.manual_seed(recipe.seed)
        model = debian_text()
        fitted = training.fit(model, parts, recipe)
        facts = training.facts_of("examples.debian_text", recipe, fitted, model, parts)
        facts |= {"net": "debian_text", "texts_sha256": hashlib.sha256(repr(texts).encode()).hexdigest()}
        path = training.save(model, options.out or CHECKPOINTS / "debian_text.safetensors", facts)
        blob = json.dumps(vocabulary._asdict(), ensure_ascii=False, indent=0) + "\n"
        training.write(path.with_suffix(".words.json"), blob.encode())
    except EdgepruneError as error:
        raise training.fail(error) from None
    print(training.summary(facts, path))


if __name__ == "__main__":
    main()
