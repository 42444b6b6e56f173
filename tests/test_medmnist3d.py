"""MedMNIST3D's files: read in the official layout, and refused with one message otherwise."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tp4_unet_conv3d import medmnist3d
from tp4_unet_conv3d.medmnist3d import LAYOUTS, ORIGINS, load_medmnist3d, read_parts

COUNTS = {"train": 22, "val": 11, "test": 13}


def official_arrays(task: str, edge: int = 28) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    classes = len(LAYOUTS[task].classes)
    arrays = {}
    for part, count in COUNTS.items():
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, edge, edge, edge), np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    return arrays


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a small file in the official layout, and make its counts and MD5 the official ones."""

    def written(task: str, arrays: dict[str, np.ndarray], edge: int = 28) -> Path:
        path = tmp_path / "data" / ORIGINS[task].files[edge == 64]
        path.parent.mkdir(exist_ok=True)
        save = np.savez_compressed if edge == 28 else np.savez  # the official ones are compressed
        save(path, **arrays)
        md5 = {28: "0" * 32, 64: "0" * 32, edge: hashlib.md5(path.read_bytes()).hexdigest()}
        layout = replace(LAYOUTS[task], counts=COUNTS, md5=md5)
        monkeypatch.setitem(medmnist3d.LAYOUTS, task, layout)
        monkeypatch.setenv("LABKIT_DATA", str(path.parent))
        return path

    return written


@pytest.mark.parametrize(("task", "edge"), [("organ", 28), ("nodule", 28), ("nodule", 64)])
def test_the_official_layout_is_read(task, edge, write):
    arrays = official_arrays(task, edge)
    path = write(task, arrays, edge)
    data = load_medmnist3d(task, "real")
    assert data.source == "real:" + hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert len(data.classes) == {"organ": 11, "nodule": 2}[task]
    for ours, theirs in (("train", "train"), ("validation", "val"), ("test", "test")):
        part = getattr(data, ours)
        np.testing.assert_array_equal(part.x, arrays[f"{theirs}_images"])
        np.testing.assert_array_equal(part.y, arrays[f"{theirs}_labels"][:, 0])


def test_a_given_file_is_read_wherever_it_is(write, tmp_path, monkeypatch):
    path = write("nodule", official_arrays("nodule"))
    elsewhere = path.rename(tmp_path / "mine.npz")
    monkeypatch.delenv("LABKIT_DATA")
    assert load_medmnist3d("nodule", "auto", str(elsewhere)).source.startswith("real:")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(path: Path) -> None:
    arrays = official_arrays("nodule")
    arrays["test_images"][0, 0, 0, 0] ^= 1
    np.savez_compressed(path, **arrays)


def lose_labels(path: Path) -> None:
    np.savez(path, **{k: v for k, v in official_arrays("nodule").items() if k != "val_labels"})


def flatten(path: Path) -> None:
    arrays = official_arrays("nodule")
    np.savez(path, **arrays | {"val_images": arrays["val_images"][:, 0]})


def label_too_high(path: Path) -> None:
    arrays = official_arrays("nodule")
    np.savez(path, **arrays | {"val_labels": arrays["val_labels"] + 1})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "truncated or unreadable"),
        (change, "the official file's is"),
        (lose_labels, "val_labels"),
        (flatten, "val_images is uint8 (11, 28, 28), expected uint8 (11, 28, 28, 28)"),
        (label_too_high, "labels above the last class"),
        (Path.unlink, "absent"),
        (lambda path: path.write_text("<html>busy</html>"), "truncated or unreadable"),
    ],
)
def test_a_wrong_file_is_one_clear_error(damage, message, write, capsys):
    path = write("nodule", official_arrays("nodule"))
    damage(path)
    with pytest.raises(SystemExit) as leaving:
        load_medmnist3d("nodule", "real")
    assert leaving.value.code == 2
    printed = capsys.readouterr().err
    assert f"error: --data real: NoduleMNIST3D can't be had. Tried:\n  - {path}: " in printed
    assert message in printed
    assert ORIGINS["nodule"].page in printed


def test_auto_warns_and_gives_a_sample(capsys):
    data = load_medmnist3d("organ", "auto")
    assert data.source == "sample"
    assert "LABKIT_DATA: not set" in capsys.readouterr().err
    assert data.train.x.shape == (330, 28, 28, 28)
    assert np.bincount(data.test.y).tolist() == [10] * 11
    again = load_medmnist3d("organ", "sample")
    np.testing.assert_array_equal(data.test.x, again.test.x)


def test_a_given_file_that_is_absent_is_an_error_even_with_auto(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        load_medmnist3d("organ", "auto", str(tmp_path / "no.npz"))
    assert "no.npz: absent" in capsys.readouterr().err


def test_counts_are_the_published_ones():
    assert LAYOUTS["organ"].counts == {"train": 971, "val": 161, "test": 610}
    assert LAYOUTS["nodule"].counts == {"train": 1158, "val": 165, "test": 310}


@pytest.mark.realdata
@pytest.mark.parametrize("task", ["organ", "nodule"])
def test_the_real_file_is_the_published_one(task, real_data):
    paths = [Path(os.environ["LABKIT_DATA"]) / name for name in ORIGINS[task].files]
    found = [path for path in paths if path.exists()]
    if not found:
        pytest.skip(f"no {paths[0].name} below LABKIT_DATA")
    parts, _ = read_parts(found[0], LAYOUTS[task])
    assert parts[0].x.shape[2:] in [(28, 28), (64, 64)]
