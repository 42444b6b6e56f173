"""Pictures from the web: copies are found and named, groups stay together, controls are sound."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from labkit.files import DataError
from tp6_real_world.brain_tumor import classify, cross_validation, metrics, pictures
from tp6_real_world.brain_tumor.phantoms import phantom


def head(index: int, has_tumour: bool = True) -> Image.Image:
    images, _ = phantom(np.random.default_rng([5, index]), 3, 96, float(not has_tumour))
    return Image.fromarray(images[1, ..., 1])


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """Training and test folders with planted copies: the same file, larger, darker, as JPEG."""
    root = tmp_path_factory.mktemp("planted")
    for part, numbers in (("Training", range(8)), ("Testing", range(8, 12))):
        for index in numbers:
            name = "notumor" if index % 2 else "glioma"
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            head(index, name == "glioma").save(folder / f"{index}.png")
    first = root / "Training" / "glioma" / "0.png"
    (root / "Testing" / "glioma" / "leaked.png").write_bytes(first.read_bytes())
    second = Image.open(root / "Training" / "notumor" / "1.png")
    second.resize((150, 150)).save(root / "Testing" / "notumor" / "larger.jpg", quality=70)
    third = Image.open(root / "Training" / "glioma" / "2.png")
    ImageEnhance.Brightness(third).enhance(0.8).save(root / "Training" / "glioma" / "darker.png")
    (root / "Testing" / "glioma" / "twice.png").write_bytes(first.read_bytes())
    (root / "Training" / ".DS_Store").write_bytes(b"left by macOS")
    return root


def test_planted_copies_are_counted_named_and_kept_together(planted):
    found, _ = pictures.read(planted)
    assert len(found.names) == 16
    assert [found.count("exact", True), found.count("near", True)] == [2, 1]
    assert [found.count("exact", False), found.count("near", False)] == [1, 1]
    pairs = {(copy.first, copy.second, copy.kind, copy.across) for copy in found.copies}
    assert ("Training/glioma/0.png", "Testing/glioma/leaked.png", "exact", True) in pairs
    assert ("Training/notumor/1.png", "Testing/notumor/larger.jpg", "near", True) in pairs
    place = {name: index for index, name in enumerate(found.names)}
    for first, second, *_ in pairs:
        assert found.groups[place[first]] == found.groups[place[second]]
    assert len(np.unique(found.groups)) == 12
    text = found.in_words()
    assert "16 pictures" in text
    assert "Test pictures with a copy in training: 2 exact, 1 near" in text
    named = found.pairs_in_words()
    assert named.splitlines()[0].startswith("- exact copy in training and test: ")
    assert "larger.jpg" in named


def test_groups_with_both_labels_are_told(tmp_path):
    for name in ("yes", "no"):
        (tmp_path / name).mkdir()
        head(3).save(tmp_path / name / "a.png")
        head(4 + (name == "no")).save(tmp_path / name / "b.png")
    found, _ = pictures.read(tmp_path)
    assert found.labels.sum() == 2
    assert "Groups with both labels: 1." in found.in_words()


def test_other_heads_are_no_copies():
    looks = [pictures.look(head(index, index % 2 == 0)) for index in range(20, 60)]
    names = [str(index) for index in range(40)]
    found = pictures.find_copies(looks, names, [""] * 40)
    assert len(found) <= 2


@pytest.mark.parametrize("kind", ["damaged", "one class", "no folder"])
def test_folders_that_are_wrong_are_named(tmp_path, kind):
    root = tmp_path / "set"
    if kind != "no folder":
        (root / "yes").mkdir(parents=True)
        head(0).save(root / "yes" / "a.png")
    if kind == "damaged":
        (root / "no").mkdir()
        (root / "no" / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="b.png" if kind == "damaged" else "set"):
        pictures.read(root)


@pytest.mark.parametrize(
    ("flag", "value"), [("data-dir", "/no/such/folder"), ("dropout", "1.0"), ("width", "0")]
)
def test_impossible_settings_are_refused(flag, value, capsys):
    with pytest.raises(SystemExit) as stop:
        classify.main([f"--{flag}", value])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert f"--{flag}" in message
    assert value in message


def test_a_picture_is_cropped_to_its_head():
    picture = Image.new("L", (300, 200))
    picture.paste(head(1).resize((100, 100)), (150, 20))
    cropped = pictures.crop(picture)
    assert cropped.shape == (pictures.SIZE, pictures.SIZE)
    assert (cropped > 30).any(axis=0).mean() > 0.7
    assert (cropped > 30).any(axis=1).mean() > 0.9
    assert pictures.crop(Image.new("L", (40, 60))).max() == 0


# --- Folds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_no_group_is_in_two_parts_of_any_fold(seed):
    found = pictures.sample()
    parts = cross_validation.fold(found.labels, found.groups, seed)
    groups = [set(found.groups[rows]) for rows in parts.values()]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(found.labels)))
    for rows in parts.values():
        assert 0.2 < found.labels[rows].mean() < 0.8


def test_each_picture_is_tested_once_in_a_repetition():
    found = pictures.sample()
    tested = [cross_validation.fold(found.labels, found.groups, s)["test"] for s in range(5, 10)]
    assert sorted(np.concatenate(tested)) == list(range(len(found.labels)))
    first = cross_validation.fold(found.labels, found.groups, 0)["test"]
    assert set(first) != set(tested[0])


def test_random_labels_are_dealt_to_groups_anew_in_each_repetition():
    labels = np.array([1, 1, 1, 0, 0, 1, 0, 0])
    groups = np.array([5, 5, 5, 2, 2, 7, 9, 1])
    dealt = [cross_validation.dealt_anew(labels, groups, repetition) for repetition in range(8)]
    for found in dealt:
        assert len(set(found[:3])) == len(set(found[3:5])) == 1
        firsts = [0, 3, 5, 6, 7]
        assert sorted(found[firsts]) == sorted(labels[firsts])
    assert len({tuple(found) for found in dealt}) > 2


def test_a_masked_brain_keeps_nothing_of_the_middle():
    images = np.full((2, 96, 96), 7, np.uint8)
    found = cross_validation.without_middle(images)
    assert found[:, 10:86, 30:66].max() == 0
    assert found[:, 0, 0].min() == 7
    assert found.astype(bool).mean() == pytest.approx(1 - np.pi / 4, abs=0.03)


def test_all_folds_together_are_a_hand_made_sum(tmp_path):
    groups, truth = np.array([0, 0, 1, 2, 3, 4]), np.array([1, 1, 0, 0, 1, 0])
    for place, rows in enumerate(([0, 1, 2], [3, 4, 5])):
        folder = tmp_path / str(place)
        folder.mkdir()
        logits = np.array([2.0, -1.0, -3.0, 1.0, 4.0, -1.0])[rows]
        np.savez(folder / "predictions.npz", rows=rows, logits=logits, truth=truth[rows])
    found = cross_validation.out_of_fold([tmp_path / "0", tmp_path / "1"], groups)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["committee_accuracy"] == pytest.approx(4 / 6)
    assert found["auroc"] == 1.0
    assert found["pictures"] == 6
    assert found["groups"] == 5
    assert found["accuracy_low"] < 4 / 6 < found["accuracy_high"]


def test_controls_differ_in_what_they_say_and_in_nothing_else():
    plain, random, masked = (
        cross_validation.load("sample", seed=3, control=control)
        for control in ("network", "random_labels", "masked_brain")
    )
    np.testing.assert_array_equal(plain.test.rows, masked.test.rows)
    np.testing.assert_array_equal(plain.test.y, masked.test.y)
    assert (plain.test.x != masked.test.x).any()
    everything = [np.concatenate([d.train.y, d.validation.y, d.test.y]) for d in (plain, random)]
    assert (everything[0] != everything[1]).any()
    assert metrics.auroc(np.arange(4), np.array([0, 0, 1, 1])) == 1


@pytest.mark.realdata
@pytest.mark.usefixtures("real_data")
def test_real_copies_are_all_found():
    root = Path(os.environ["LABKIT_DATA"]) / "brain_tumor_yes_no"
    found, _ = pictures.read(root)
    assert len(found.names) == 253
    assert found.count("exact", False) == 25
    for seed in range(15):
        parts = cross_validation.fold(found.labels, found.groups, seed)
        groups = [set(found.groups[rows]) for rows in parts.values()]
        assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    listed = root / "groups.csv"
    if not listed.exists():
        pytest.skip("no list of groups to compare with")
    with listed.open() as file:
        theirs = {row["file"]: row["group"] for row in csv.DictReader(file)}
    for group in set(theirs.values()):
        ours = {
            int(number)
            for name, number in zip(found.names, found.groups, strict=True)
            if theirs[str(name)] == group
        }
        assert len(ours) == 1, f"group {group} is torn apart"
