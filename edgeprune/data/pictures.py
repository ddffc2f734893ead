"""Open a picture file that may be anything: known formats only, bounded in size, one frame.

Pillow decides a format by content and hands an EPS file to Ghostscript, whatever its name is. So the
formats that may be decoded are listed, and none of them starts another program.

Guarantee: no decoder outside FORMATS runs; no picture above MOST_PIXELS is decoded; a pipe or a device is
not opened. Elsewhere: folders of pictures (images).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from edgeprune.errors import DataError
from edgeprune.paths import open_file, printable

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
MOST_PIXELS = 1 << 26  # a 67-megapixel photograph, 268 MB as RGBA
LONGEST_SIDE = 65_535  # JPEG's own limit
OTHERS = (
    (b"%!PS", "EPS"), (b"\xc5\xd0\xd3\xc6", "EPS"), (b"%PDF", "PDF"), (b"8BPS", "PSD"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
)  # fmt: skip
UNREADABLE = (
    OSError, EOFError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError,
    MemoryError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, ArithmeticError,
)  # fmt: skip  # what Pillow's parsers raise on damaged files


@contextmanager
def opened_picture(path: Path) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """The picture with its header read and its pixels not yet, and the stream that it is read from.

    Raises:
        DataError: another format, damaged (whatever is raised inside the block too), or too large.
    """
    with open_file(path, DataError) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is lower
        try:
            with Image.open(stream, formats=_formats()) as image:
                if image.width * image.height > MOST_PIXELS or max(image.size) > LONGEST_SIDE:
                    raise DataError(
                        f"{printable(path)}: has {image.width}×{image.height} pixels; at most {MOST_PIXELS}"
                        f" and {LONGEST_SIDE} along a side are read",
                        tip="scale it down",
                    )
                yield image, stream
        except DataError:
            raise
        except UNREADABLE as exc:
            stream.seek(0)
            head = stream.read(4)
            named = next((name for magic, name in OTHERS if head.startswith(magic)), "")
            if named:
                raise DataError(
                    f"{printable(path)}: is {named}, which is not read",
                    tip=f"convert it to one of {', '.join(FORMATS)}",
                ) from exc
            reason = (
                "no known format"
                if isinstance(exc, UnidentifiedImageError)
                else str(exc) or type(exc).__name__
            )
            raise DataError(
                f"{printable(path)}: unreadable image: {reason}", tip="repair or remove the file"
            ) from exc


def cover(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale to cover width × height (bilinear, aspect ratio kept) and crop at the centre."""
    scale = max(width / image.width, height / image.height)
    full = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    left, top = (full[0] - width) // 2, (full[1] - height) // 2
    if full[0] * full[1] > MOST_PIXELS:  # a strip: only what the crop shows is scaled
        x, y = image.width / full[0], image.height / full[1]
        box = (left * x, top * y, min(image.width, (left + width) * x), min(image.height, (top + height) * y))
        return image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    if full != image.size:
        image = image.resize(full, Image.Resampling.BILINEAR)
    return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class Fitted:
    """Where an image lies that was scaled to fit: its new size (width, height), corner and scale (x, y)."""

    size: tuple[int, int]
    left: int
    top: int
    scale: tuple[float, float]

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns that it covers."""
        return slice(self.top, self.top + self.size[1]), slice(self.left, self.left + self.size[0])


def contain(size: tuple[int, int], width: int, height: int) -> Fitted:
    """Scale an image of `size` to lie within width × height, aspect ratio kept, centred."""
    scale = min(width / size[0], height / size[1])
    new = max(1, min(width, round(size[0] * scale))), max(1, min(height, round(size[1] * scale)))
    return Fitted(new, (width - new[0]) // 2, (height - new[1]) // 2, (new[0] / size[0], new[1] / size[1]))


def _formats() -> list[str]:
    """Those that this build of Pillow has."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]
