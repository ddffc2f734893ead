"""Cut the demo's data set from Fashion-MNIST: files small enough to travel with the code.

    python -m examples.demo_data

The folder keeps the layout of the full set (four gzipped idx files). Its training
part are the last images of the full training set, which the example networks were
not fitted to; its test part are the first images of the full test set.
"""

from __future__ import annotations

import argparse
import gzip
import struct
from pathlib import Path

import numpy as np

from edgeprune.errors import DataError, EdgepruneError
from examples import training
from examples.fashion import DATA, FILES, VALIDATION, load_part

OUT = Path(__file__).parent / "demo" / "fashion-small"


def idx_bytes(values: np.ndarray) -> bytes:
    """A gzipped idx file of uint8 values; the same values give the same bytes."""
    header = b"\0\0\x08" + struct.pack(f">B{values.ndim}I", values.ndim, *values.shape)
    return gzip.compress(header + values.astype(np.uint8).tobytes(), compresslevel=9, mtime=0)


def main(arguments: list[str] | None = None) -> None:
    """Read the full set, write the small one, name the files' sizes."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo_data", description="Cut the demo's data set."
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the full set's four idx files")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--train", type=int, default=4000, help="images of the training part")
    parser.add_argument("--test", type=int, default=4000, help="images of the test part")
    options = parser.parse_args(arguments)
    try:
        if not 0 < options.train <= VALIDATION:
            raise DataError(f"asked for {options.train} training images; 1 to {VALIDATION} were not fitted")
        for name, cut in (("train", slice(-options.train, None)), ("test", slice(options.test))):
            images, labels = load_part(options.data, name)
            for kind, values in (("images-idx3", images[cut]), ("labels-idx1", labels[cut])):
                path = options.out / f"{FILES[name]}-{kind}-ubyte.gz"
                blob = idx_bytes(values)
                training.write(path, blob)
                print(f"{len(values)} {kind}: {len(blob)} bytes, {path}")
    except EdgepruneError as error:
        raise training.fail(error) from None


if __name__ == "__main__":
    main()
