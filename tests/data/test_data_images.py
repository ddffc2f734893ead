"""Folders of class folders: classes, test parts, resizing, unreadable files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeprune.data import open_data
from edgeprune.errors import DataError

COLOURS = {"daisy": (250, 10, 10), "rose": (10, 250, 10), "tulip": (10, 10, 250)}


def write(folder: Path, colour: Any, size: tuple[int, int] = (8, 8), name: str = "a.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if isinstance(colour, tuple) else "L", size, colour).save(folder / name)
    return folder / name


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    root = tmp_path / "flowers"
    for name, colour in COLOURS.items():
        for i in range(3):
            write(root / name, colour, name=f"{i}.png")
    return root


def test_classes_are_the_folders_in_sorted_order(flowers: Path):
    """Labels number the sorted names; each image has its folder's colour."""
    dataset = open_data(flowers, input_shapes=[(3, 8, 8)])
    assert dataset.class_names == ("daisy", "rose", "tulip")
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    (batch,) = dataset.batch([8, 0])
    assert batch.shape == (2, 3, 8, 8)
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch[0, :, 0, 0], np.array(COLOURS["tulip"]) / 255, rtol=1e-6)
    np.testing.assert_allclose(batch[1, :, 7, 7], np.array(COLOURS["daisy"]) / 255, rtol=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (5, 31), (100, 100)])
def test_images_are_scaled_to_cover_and_cropped_at_the_centre(size: tuple[int, int], tmp_path: Path):
    """Any size becomes the model's, and the middle of the image stays in the middle."""
    for name in ("a", "b"):
        path = write(tmp_path / "d" / name, 0, size)
        image = np.zeros((size[1], size[0]), np.uint8)
        image[:, size[0] // 2 :] = 255
        Image.fromarray(image).save(path)
    (batch,) = open_data(tmp_path / "d", input_shapes=[(1, 12, 12)]).batch([0])
    assert batch.shape == (1, 1, 12, 12)
    assert batch[0, 0, :, 0].max() < 0.05 if size[0] > 5 else True
    assert batch[0, 0, 6, :5].mean() < 0.5 < batch[0, 0, 6, 8:].mean()


def test_grey_and_colour_follow_the_model(flowers: Path):
    """One channel gives luminance, three give RGB, −1 takes the first image's size."""
    grey = open_data(flowers, input_shapes=[(1, 8, 8)]).batch([0])[0]
    assert grey.shape == (1, 1, 8, 8)
    np.testing.assert_allclose(grey[0, 0, 0, 0], round(250 * 0.299 + 10 * 0.701) / 255, atol=0.005)
    assert open_data(flowers).batch([0])[0].shape == (1, 3, 8, 8)
    assert open_data(flowers, input_shapes=[(3, -1, -1)]).batch([0])[0].shape == (1, 3, 8, 8)


def test_preprocessing_says_all_that_was_done(flowers: Path):
    """Scale, mean, std, layout, size and resizing are there to be shipped."""
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.2, 0.2]
    dataset = open_data(flowers, input_shapes=[(3, 4, 4)], mean=mean, std=std)
    said = dataset.preprocessing
    raw = np.array(COLOURS["rose"])
    np.testing.assert_allclose(
        dataset.batch([3])[0][0, :, 1, 1],
        (raw * said["scale"] - np.array(said["mean"])) / np.array(said["std"]),
        rtol=1e-5,
    )
    assert said["size"] == [3, 4, 4]
    assert said["layout"] == "NCHW"
    assert "crop" in said["resize"]


@pytest.mark.parametrize(("second", "tests"), [("test", 3), ("val", 3)])
def test_a_test_folder_is_the_test_part(second: str, tests: int, tmp_path: Path):
    """Beside train, test (or else val) holds the test samples."""
    for part in ("train", second):
        for name, colour in COLOURS.items():
            write(tmp_path / "d" / part / name, colour)
    dataset = open_data(tmp_path / "d")
    assert len(dataset) == 3 + tests
    assert dataset.test_indices.tolist() == [3, 4, 5]
    assert dataset.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_validation_folder_is_the_validation_part_where_there_is_a_test_folder(tmp_path: Path):
    """train, val and test: each is its own part."""
    for part in ("train", "val", "test"):
        for name, colour in COLOURS.items():
            write(tmp_path / "d" / part / name, colour)
    dataset = open_data(tmp_path / "d")
    assert dataset.validation_indices.tolist() == [3, 4, 5]
    assert dataset.test_indices.tolist() == [6, 7, 8]


def test_class_folders_called_test_and_control_are_classes(tmp_path: Path):
    """Without a train folder, folder names mean nothing but classes."""
    for name in ("control", "test"):
        write(tmp_path / "d" / name, 9)
    assert open_data(tmp_path / "d").class_names == ("control", "test")


def test_the_digest_sees_a_changed_file(flowers: Path):
    """Another image in place of one of the same name is another dataset."""
    before = open_data(flowers).sha256
    assert open_data(flowers).sha256 == before
    write(flowers / "rose", (1, 2, 3), name="1.png")
    assert open_data(flowers).sha256 != before


def test_unreadable_images_are_named(flowers: Path):
    """Text under an image's name is found at opening."""
    (flowers / "rose" / "1.png").write_text("not an image")
    with pytest.raises(DataError, match=r"rose/1\.png: unreadable image"):
        open_data(flowers)


def test_truncated_images_are_named_when_read(flowers: Path):
    """A good header with half a body is found when the image is needed, by name."""
    path = flowers / "rose" / "1.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:4000])
    dataset = open_data(flowers)
    with pytest.raises(DataError, match=r"rose/1\.png: unreadable image"):
        dataset.batch([4])


@pytest.mark.parametrize(
    ("make", "shapes", "text"),
    [
        (lambda root: root.mkdir(), None, "no class folders"),
        (lambda root: (root / "a").mkdir(parents=True), None, "no images in class folder"),
        (lambda root: write(root / "a", 3), [(2, 8, 8)], "cannot become the model's input of shape 2×8×8"),
        (lambda root: write(root / "a", 3), [(64,)], "cannot become"),
        (lambda root: write(root / "a", 3), [(3, 8, 8), (3,)], "the model takes 2"),
        (
            lambda root: (write(root / "train" / "a", 3), write(root / "test" / "b", 3)),
            None,
            "class folder b, which the training part lacks",
        ),
    ],
)
def test_folders_that_hold_no_usable_images(make: Any, shapes: Any, text: str, tmp_path: Path):
    """Each is a DataError that says what is missing."""
    make(tmp_path / "d")
    with pytest.raises(DataError, match=text):
        open_data(tmp_path / "d", input_shapes=shapes)


def test_only_the_images_asked_for_are_read(flowers: Path):
    """Files may vanish after opening; the others still load."""
    dataset = open_data(flowers)
    (flowers / "rose" / "1.png").unlink()
    assert dataset.batch([0, 8])[0].shape[0] == 2
    with pytest.raises(DataError, match="cannot be read"):
        dataset.batch([4])
