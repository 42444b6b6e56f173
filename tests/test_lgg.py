"""The LGG loader: the official layout written in miniature, its damage, and no patient twice."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import labkit
from labkit import lgg


def write_tree(root: Path, patients: int = 8, slices: int = 3, ending: str = ".tif") -> Path:
    """`root/kaggle_3m` as the official archive has it, with small images of known content."""
    rng = np.random.default_rng(0)
    for number in range(patients):
        name = f"TCGA_XX_{number:04d}_20000101"
        folder = root / "kaggle_3m" / name
        folder.mkdir(parents=True)
        for index in range(8, 8 + slices):  # 8, 9, 10: sorted as text, 10 would come first
            image = rng.integers(0, 8, (256, 256, 3), dtype=np.uint8)
            image[60:200, 60:200] += np.uint8(100)
            image[100:140, 100:140, lgg.FLAIR] = 100 + 10 * index
            mask = np.zeros((256, 256), np.uint8)
            if index > 8:
                mask[100:140, 100:140] = 255
            Image.fromarray(image).save(folder / f"{name}_{index}{ending}")
            Image.fromarray(mask).save(folder / f"{name}_{index}_mask{ending}")
    (root / "kaggle_3m" / "data.csv").write_text("Patient\n")
    return root / "kaggle_3m"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    return write_tree(tmp_path)


def test_official_layout(tree):
    parts, source = lgg.load_slices()
    assert source.startswith("real:")
    assert len(source) == len("real:") + 8
    assert list(parts) == ["train", "validation", "test"]
    assert [len(found.images) for found in parts.values()] == [18, 3, 3]  # 6, 1 and 1 patients
    for found in parts.values():
        assert found.images.shape[1:] == (128, 128, 1)
        assert found.images.dtype == np.float32
        np.testing.assert_array_equal(found.masks.sum(axis=(1, 2))[:3], [0, 400, 400])
        # Slices in the order of their numbers: the tumour gets brighter from 8 to 10.
        inside = found.images[:3, 55:65, 55:65, 0].mean(axis=(1, 2))
        assert (np.diff(inside) > 0).all()
    assert lgg.load_slices()[1] == source


def test_another_selection_of_slices_is_refused(tree, capsys):
    assert lgg.load_slices(count=24)[1] == lgg.load_slices()[1]
    with pytest.raises(labkit.DataError, match="another selection, of 24 slices and not 3,929"):
        lgg.read_slices(tree, count=3929)
    with pytest.raises(SystemExit, match="2"):
        lgg.load_slices(2, count=3929)
    assert "another selection, of 24 slices and not 3,929" in capsys.readouterr().err


def test_no_patient_is_in_two_parts(tree):
    parts, _ = lgg.load_slices()
    patients = [set(found.patients) for found in parts.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 8


def test_the_split_is_by_name_alone(tree):
    names = [f"patient{number}" for number in range(100)]
    parts = lgg.split(tree, names)
    assert [len(part) for part in parts.values()] == [70, 15, 15]
    assert lgg.split(tree, names[::-1]) == {
        name: part if name != "train" else sorted(part) for name, part in parts.items()
    }


def test_split_file(tree):
    names = sorted(path.name for path in tree.iterdir() if path.is_dir())
    parts = ["val", "test", *["train"] * 6]
    rows = [f"{name},{part}" for name, part in zip(names, parts, strict=True)]
    (tree / "split.csv").write_text("\n".join(["patient,split", *rows, rows[0]]))
    found, _ = lgg.load_slices()
    assert set(found["validation"].patients) == {names[0]}
    assert set(found["test"].patients) == {names[1]}

    (tree / "split.csv").write_text("\n".join(["patient,split", *rows, f"{names[0]},train"]))
    with pytest.raises(labkit.DataError, match="in two parts"):
        lgg.read_slices(tree)
    (tree / "split.csv").write_text("\n".join(["patient,split", *rows[1:]]))
    with pytest.raises(labkit.DataError, match=f"{names[0]} is in no part"):
        lgg.read_slices(tree)
    (tree / "split.csv").write_text("\n".join(["patient,split", f"{names[0]},training"]))
    with pytest.raises(labkit.DataError, match=r"line 2: patient .*, split training"):
        lgg.read_slices(tree)
    (tree / "split.csv").write_text("\n".join(["name,part", *rows]))
    with pytest.raises(labkit.DataError, match="columns patient and split are needed"):
        lgg.read_slices(tree)


def test_a_patient_is_normalised_without_looking_at_masks(tree):
    parts, _ = lgg.load_slices()
    brain = parts["test"].images[:, 30:100, 30:100]
    assert abs(brain.mean()) < 0.1
    assert brain.std() == pytest.approx(1, abs=0.1)
    flat = lgg.normalise(np.zeros((2, 4, 4, 1), np.uint8))
    assert np.isfinite(flat).all()


def test_missing_data_is_one_clear_error(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        lgg.load_slices()
    assert "LABKIT_DATA: not set" in capsys.readouterr().err
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="2"):
        lgg.load_slices()
    message = capsys.readouterr().err
    assert f"{tmp_path}/kaggle_3m: absent" in message
    assert "mateuszbuda/lgg-mri-segmentation" in message


def test_damage_is_named(tree, capsys):
    folder = sorted(path for path in tree.iterdir() if path.is_dir())[0]
    victim = sorted(folder.glob("*_9.tif"))[0]
    victim.write_bytes(victim.read_bytes()[:1000])
    with pytest.raises(SystemExit, match="2"):
        lgg.load_slices()
    message = capsys.readouterr().err
    assert str(victim) in message
    assert "truncated or unreadable" in message
    victim.unlink()
    with pytest.raises(labkit.DataError, match="there is no slice"):
        lgg.read_slices(tree)
    mask = victim.with_name(f"{victim.stem}_mask.tif")
    mask.unlink()
    shutil.copy(victim.with_name(victim.name.replace("_9", "_8")), victim.with_name("ninth.tif"))
    with pytest.raises(labkit.DataError, match="not named"):
        lgg.read_slices(tree)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(labkit.DataError, match="no slices"):
        lgg.read_slices(tree)


def test_too_few_patients(tmp_path):
    with pytest.raises(labkit.DataError, match="too few"):
        lgg.read_slices(write_tree(tmp_path, patients=2, slices=1, ending=".png"))


@pytest.mark.realdata
def test_the_real_set(real_data):
    parts, source = lgg.load_slices()
    assert source.startswith("real:")
    patients = [set(found.patients) for found in parts.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 110
    share = np.concatenate([found.masks for found in parts.values()]).mean()
    assert 0.005 < share < 0.025
    for found in parts.values():  # tumours are bright on FLAIR, but so is much else
        assert found.images[found.masks].mean() > 0.5


def test_what_systems_leave_in_the_folders_changes_nothing(tree):
    before = lgg.load_slices()
    patient = next(path for path in sorted(tree.iterdir()) if path.is_dir())
    for folder in (tree, patient):
        for name in (".DS_Store", "Thumbs.db", "._x_8_mask.tif", "desktop.ini"):
            (folder / name).write_bytes(b"junk")
    for name in ("__MACOSX", ".ipynb_checkpoints"):
        shutil.copytree(patient, tree / name)
    after = lgg.load_slices()
    assert after[1] == before[1]
    for part, found in before[0].items():
        np.testing.assert_array_equal(after[0][part].images, found.images)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00junk", b'patient,split\n"x\x00,train'])
def test_garbage_in_the_split_is_named(tree, content):
    (tree / "split.csv").write_bytes(content)
    with pytest.raises(labkit.DataError, match=r"split\.csv"):
        lgg.split(tree, ["a", "b", "c"])


def test_the_split_may_come_from_windows(tree):
    names = ["a", "b", "c"]
    (tree / "split.csv").write_bytes(
        "\ufeffpatient,split\r\na,train\r\nb,val\r\nc,test\r\n".encode()
    )
    assert lgg.split(tree, names) == {"train": ["a"], "validation": ["b"], "test": ["c"]}


def test_masks_of_ones_are_masks(tree):
    """Some tools write 1 for tumour, not 255; a JPEG's noise beside 0 is no tumour."""
    before = lgg.load_slices()[0]
    for mask in tree.rglob("*_mask.tif"):
        pixels = np.asarray(Image.open(mask))
        Image.fromarray((pixels > 0).astype(np.uint8)).save(mask)
    after = lgg.load_slices()[0]
    for part, found in before.items():
        assert found.masks.any()
        np.testing.assert_array_equal(after[part].masks, found.masks)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda mask: mask.unlink(), "there is no .*_9_mask beside it"),
        (
            lambda mask: Image.new("L", (64, 64)).save(mask),
            r"\(64, 64\) pixels, its slice \(256, 256\)",
        ),
        (
            lambda mask: Image.new("RGB", (256, 200)).save(
                mask.with_name(mask.name.replace("_mask", ""))
            ),
            "256x200 pixels; slices are square",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tree, spoil, message):
    spoil(next(iter(sorted(tree.rglob("*_9_mask.tif")))))
    with pytest.raises(labkit.DataError, match=message):
        lgg.read_slices(tree)
