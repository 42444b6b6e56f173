"""Signature verification: the maths, what the loader refuses, verify.py as a stranger uses it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.metrics import roc_auc_score, roc_curve

import labkit
from labkit.files import DataError
from tp6_real_world.signature_verification import (
    augmentation,
    data,
    evaluate,
    floors,
    ink,
    model,
    strokes,
    train,
    verification,
    verify,
)

NOISE = np.random.default_rng(0).integers(235, 250, (100, 200), np.uint8)
DRAWN = strokes.sample(writers=6, genuine=6, forged=2)


def picture(index: int = 0) -> np.ndarray:
    return DRAWN[index][2]


# --- From picture to canvas ----------------------------------------------------------------------


def test_otsu_separates_what_every_other_threshold_separates_worse():
    rng = np.random.default_rng(0)
    grey = np.concatenate([rng.normal(0.3, 0.05, 200), rng.normal(0.8, 0.1, 900)]).clip(0, 1)

    def within(threshold: float) -> float:
        parts = grey[grey <= threshold], grey[grey > threshold]
        return sum(part.var() * len(part) for part in parts if len(part))

    best = min(np.linspace(0.02, 0.98, 400), key=within)
    assert within(ink.otsu(grey)) == pytest.approx(within(best), rel=0.01)


@pytest.mark.parametrize("paper", [255, 244, 190])
def test_the_paper_does_not_show_on_the_canvas(paper):
    """Genuine CEDAR scans have grey paper and forged ones white: the loader's one reason to be."""
    tinted = (picture() / 255 * paper).astype(np.uint8)
    np.testing.assert_array_equal(ink.prepare(tinted), ink.prepare(picture()))


def test_a_shadow_and_margins_do_not_show_on_the_canvas():
    shadow = np.linspace(1, 0.45, picture().shape[1])
    wide = np.full((300, 500), 255.0)
    wide[90:210, 130:390] = picture()
    expected = ink.prepare(picture()) > 0
    for other in (picture() * shadow, wide):
        found = ink.prepare(other.astype(np.uint8)) > 0
        assert (found & expected).sum() / (found | expected).sum() > 0.9


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_the_edge_of_a_scanned_sheet_does_not_show_on_the_canvas(side):
    """In CEDAR such lines are on 27 forged and 5 genuine scans."""
    turned = {"left": 0, "bottom": 1, "right": 2, "top": 3}[side]
    scan = np.rot90(picture(), -turned).copy()
    scan[10 : int(0.9 * len(scan)), 1:3] = 30
    scan = np.rot90(scan, turned)
    assert (ink.place(scan < 128) != ink.prepare(picture())).any()
    np.testing.assert_array_equal(ink.prepare(scan), ink.prepare(picture()))


def test_a_stroke_at_the_edge_of_a_tight_crop_stays():
    tight = np.full((80, 200), 255, np.uint8)
    for row in range(5, 75):
        tight[row, max(0, 14 - row // 6) : 17 - row // 6] = 0  # leans, as strokes do
    tight[40:43, 10:190] = 0
    assert (ink.find_ink(tight) == (tight == 0)).all()


def test_ink_is_scaled_evenly_and_centred():
    mark = np.zeros((300, 300), bool)
    mark[100:120, 50:250] = True  # ten times as wide as high
    canvas = ink.place(mark)
    assert canvas.shape == (ink.HEIGHT, ink.WIDTH)
    assert set(np.unique(canvas)) == {0, 255}
    rows, columns = np.flatnonzero(canvas.any(axis=1)), np.flatnonzero(canvas.any(axis=0))
    assert len(columns) == ink.WIDTH - 2 * ink.MARGIN
    assert len(rows) == 12
    assert rows[0] + rows[-1] == ink.HEIGHT - 1
    assert columns[0] + columns[-1] == ink.WIDTH - 1


def page_of_text() -> Image.Image:
    page = Image.new("L", (600, 400), 250)
    for line in range(12):
        ImageDraw.Draw(page).text((30, 20 + 30 * line), "the quick brown fox jumps over it " * 2)
    return page


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.new("L", (200, 100), 240), "blank"),
        (Image.fromarray(NOISE), "blank"),
        (page_of_text(), "page of text"),
        (Image.fromarray(np.repeat([[0, 255]], 90, 1).astype(np.uint8).repeat(80, 0)), "dark"),
    ],
    ids=["white", "noise", "text", "half black"],
)  # fmt: skip
def test_what_holds_no_signature_is_refused(image, reason):
    with pytest.raises(ink.NoSignatureError, match=reason):
        ink.prepare(np.asarray(image))


# --- Augmentation --------------------------------------------------------------------------------


def test_a_writer_becomes_one_other_writer():
    y, x = np.mgrid[: ink.HEIGHT, : ink.WIDTH]
    spot = 255 * np.exp(-((y - 32) ** 2 + ((x - 50) / 2) ** 2) / 200)  # smooth: moved, it differs
    one = np.stack([spot.astype(np.uint8)] * 6)
    writers = np.array([3, 3, 3, 8, 8, 8])
    rng = np.random.default_rng(0)
    found = augmentation.augment(one, writers, rng)[..., 0]
    within = np.abs(found[0] - found[1]).mean()
    between = np.abs(found[0] - found[3]).mean()
    assert 0 < within < 0.5 * between
    again = augmentation.augment(one, writers, np.random.default_rng(0))[..., 0]
    np.testing.assert_array_equal(found, again)


def test_a_map_that_moves_nothing_changes_nothing():
    image = (ink.prepare(picture()) / 255).astype(np.float32)[np.newaxis]
    still = augmentation.coordinates(np.random.default_rng(0), 1, image.shape[1:], 0, 0)
    np.testing.assert_allclose(augmentation.sample(image, still), image, atol=1e-5)


def test_a_map_reads_between_pixels():
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    maps = np.array([[[[1.0, 0.5]], [[1.5, 2.25]]]], np.float32).reshape(1, 2, 1, 2)
    maps = np.broadcast_to(maps, (1, 2, 1, 2)).repeat(3, axis=2).repeat(2, axis=3)
    found = augmentation.sample(image, np.ascontiguousarray(maps))
    assert found[0, 0, 0] == pytest.approx(5.5)  # row 1, between columns 1 and 2
    assert found[0, 0, 2] == pytest.approx(4.25)  # between rows 0 and 1


def test_pens_get_thicker_and_thinner():
    mark = np.zeros((3, 9, 9), np.float32)
    mark[:, 3:6, 3:6] = 1
    thicker, same, thinner = augmentation.thicken(mark, np.array([1.0, 0.0, -1.0]))
    assert (thicker.sum(), same.sum(), thinner.sum()) == (25, 9, 1)


# --- Losses --------------------------------------------------------------------------------------


def test_the_triplet_loss_is_the_sum_that_it_says_it_is():
    rng = np.random.default_rng(0)
    features = floors.unit(rng.standard_normal((12, 5)).astype(np.float32))
    truth = np.array([[n, h] for n in (0, 1) for h in (0, 0, 1, 1, 2, -1)])
    apart = np.sqrt(((features[:, None] - features) ** 2).sum(axis=-1) + 1e-6)
    total = 0.0
    for weight, skilled in ((1, True), (model.RANDOM_WEIGHT, False)):
        terms = []
        for a in range(12):
            for p in range(12):
                if a == p or (truth[a] != truth[p]).any() or truth[a, 1] < 0:
                    continue
                negatives = [
                    apart[a, n]
                    for n in range(12)
                    if (truth[n, 0] == truth[a, 0]) == skilled and (truth[n] != truth[a]).any()
                ]
                x = apart[a, p] - min(negatives) + model.TRIPLET_MARGIN
                terms.append(np.log1p(np.exp(model.SHARPNESS * x)) / model.SHARPNESS)
        total += weight * np.mean(terms)
    assert float(model.triplet_loss(truth, features)) == pytest.approx(total, rel=1e-4)


def test_the_contrastive_loss_pulls_and_pushes():
    distance = np.array([[0.5], [0.5], [1.5]], np.float32)
    different = np.array([[0.0], [1.0], [1.0]], np.float32)
    expected = (0.25 + 0.25 + 0) / 3  # beyond the margin nothing pushes
    assert float(model.contrastive_loss(different, distance)) == pytest.approx(expected)


def test_pairs_are_of_one_hand_or_of_two():
    names = np.array([10 * w + i + (100 if i >= 4 else 0) for w in (1, 2, 3) for i in range(8)])
    (first, second), different = train.pairs_of(names.astype(float)[:, None, None, None], 3)
    assert len(first) == len(second) == len(different) == 12
    writer = [values.ravel() % 100 // 10 for values in (first, second)]
    forged = [values.ravel() >= 100 for values in (first, second)]
    two_hands = (writer[0] != writer[1]) | (forged[0] != forged[1])
    np.testing.assert_array_equal(two_hands, different.ravel() == 1)
    assert not forged[0].any()
    assert different.sum() == 6
    assert forged[1].sum() == 3  # half of those of two hands
    assert (first != second).all()


def test_training_tells_two_hands_apart():
    signatures = data.signatures_of(DRAWN)
    labkit.prepare(0)
    encoder = model.build_encoder("map", 4)
    encoder.compile("adam", model.triplet_loss, jit_compile=False)
    truth = np.stack([signatures.writers, signatures.hands], axis=1)
    x = (signatures.x / np.float32(255))[..., np.newaxis]
    losses = [float(encoder.train_on_batch(x, truth)) for _ in range(25)]
    assert np.mean(losses[-3:]) < 0.6 * losses[0]


# --- Error rates ---------------------------------------------------------------------------------


def test_error_rates_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    genuine, forged = rng.normal(0, 1, 150), rng.normal(1.5, 1, 200)
    scores = np.concatenate([genuine, forged])
    is_genuine = np.arange(350) < 150
    accepted, passed, _ = roc_curve(is_genuine, -scores, drop_intermediate=False)
    crossing = np.argmin(np.abs(accepted - (1 - passed)))
    expected = (accepted[crossing] + 1 - passed[crossing]) / 2
    rate, threshold = verification.equal_error(genuine, forged)
    assert rate == pytest.approx(expected)
    assert (forged <= threshold).mean() == pytest.approx((genuine > threshold).mean(), abs=0.01)


def made_up_part() -> tuple[np.ndarray, data.Signatures]:
    rng = np.random.default_rng(1)
    writers = np.repeat([0, 1, 2], 12)
    y = np.tile([0] * 7 + [1] * 5, 3)
    features = rng.standard_normal((36, 4)) + writers[:, None] + 0.8 * y[:, None]
    part = data.Signatures(np.zeros((36, 2, 2)), y, writers, y, np.zeros((36, 22)))
    return floors.unit(features), part


def test_no_reference_is_asked_about_and_scores_are_mean_distances():
    features, part = made_up_part()
    found = verification.claims(features, part, 3)
    for draw in range(verification.DRAWS):
        for writer in (0, 1, 2):
            some = found.of((found.draw == draw) & (found.writer == writer))
            genuine = some.query[some.kind == verification.GENUINE]
            own = np.flatnonzero((part.writers == writer) & (part.y == 0))
            references = np.setdiff1d(own, genuine)
            assert len(references) == 3
            assert len(genuine) == 4
            forged = some.query[some.kind == verification.SKILLED]
            assert (part.writers[forged] == writer).all()
            assert (part.y[forged] == 1).all()
            random = some.query[some.kind == verification.RANDOM]
            assert (part.writers[random] != writer).all()
            assert (part.y[random] == 0).all()
            among = np.mean([
                np.linalg.norm(features[a] - features[b])
                for a in references for b in references if a != b
            ])  # fmt: skip
            for row, score in zip(some.query, some.score, strict=True):
                apart = np.mean([np.linalg.norm(features[row] - features[r]) for r in references])
                assert score == pytest.approx(apart - among, abs=2e-5)


def test_the_area_is_that_of_scikit_learn():
    features, part = made_up_part()
    found = verification.claims(features, part, 3)
    some = found.of(found.kind != verification.RANDOM)
    expected = roc_auc_score(some.kind == verification.SKILLED, some.score)
    assert verification.area(found) == pytest.approx(expected)


def test_a_writer_with_too_few_signatures_makes_no_claims():
    features, part = made_up_part()
    assert verification.usable(part, (1, 5, 7, 10)) == [1, 5]
    assert len(verification.claims(features, part, 6).score)


def test_more_references_than_anybody_has_give_no_figures():
    features, part = made_up_part()
    found = verification.measure(features, part, {3: 0.1, 20: 0.1})
    assert "eer_3" in found
    assert not any("20" in name for name in found)


def test_intervals_draw_writers_not_signatures():
    features, part = made_up_part()
    found = verification.claims(features, part, 3)
    low, high = evaluate.by_writers(found, 0, 50)
    assert low <= verification.pooled(found) <= high
    alone = found.of(found.writer == 1)
    assert len(set(evaluate.by_writers(alone, 0, 5))) == 1  # one writer: nothing to draw


# --- Floors --------------------------------------------------------------------------------------


def test_gradient_histograms_are_those_counted_by_hand():
    canvas = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    image = canvas / 255
    down, right = np.gradient(image)
    cells = np.zeros((2, 2, 9))
    for y in range(16):
        for x in range(16):
            place = np.arctan2(down[y, x], right[y, x]) % np.pi / np.pi * 9
            lower = int(place) % 9
            strength = np.hypot(down[y, x], right[y, x])
            cells[y // 8, x // 8, lower] += strength * (1 - place % 1)
            cells[y // 8, x // 8, (lower + 1) % 9] += strength * (place % 1)
    expected = cells.reshape(-1) / np.linalg.norm(cells)
    found = floors.gradient_histograms(canvas[np.newaxis])[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_planted_shortcut_is_found():
    parts = []
    for writers in ((0, 1, 2), (3, 4, 5), (3, 4, 5)):
        rows = [entry for entry in DRAWN if entry[0] in writers]
        parts.append(
            data.signatures_of(
                [(w, h, g if h else (g * 0.95).astype(np.uint8)) for w, h, g in rows]
            )
        )
    found = floors.shortcuts(labkit.Data("sample", *parts))
    assert found["shortcut_file_paper_grey"] == 1.0
    assert abs(found["shortcut_canvas_mean"] - 0.5) < 0.35


# --- The loader ----------------------------------------------------------------------------------


def write_folders(root: Path, writers: int = 6) -> None:
    for index, (writer, hand, grey) in enumerate(DRAWN):
        if writer < writers:
            kind = f"forged/forger_{hand}" if hand else "genuine"
            folder = root / f"writer_{writer}" / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey).save(folder / f"{index}.png")


def write_cedar(root: Path) -> None:
    for index, (writer, hand, grey) in enumerate(DRAWN):
        folder, name = ("full_forg", "forgeries") if hand else ("full_org", "original")
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(root / folder / f"{name}_{writer + 1}_{index % 10 + 1}.png")


@pytest.mark.parametrize("write", [write_folders, write_cedar])
def test_both_layouts_are_read(write, tmp_path):
    write(tmp_path)
    found, digest = data.read(tmp_path)
    assert len(digest) == 64
    assert sorted(np.unique(found.writers)) == list(range(6))
    assert (found.y == 0).sum() == 36
    assert (found.y == 1).sum() == 24
    assert ((found.hands > 0) == (found.y == 1)).all()


def test_folders_without_forgers_names_have_unknown_forgers(tmp_path):
    write_folders(tmp_path)
    for folder in tmp_path.glob("*/forged/*"):
        for file in list(folder.iterdir()):
            shutil.move(file, folder.parent / file.name)
        folder.rmdir()
    found, _ = data.read(tmp_path)
    assert set(found.hands[found.y == 1]) == {-1}


def test_a_picture_under_two_names_is_named(tmp_path):
    write_folders(tmp_path)
    copied = next((tmp_path / "writer_0" / "genuine").iterdir())
    shutil.copy(copied, tmp_path / "writer_3" / "genuine" / "copy.png")
    with pytest.raises(DataError, match=rf"writer_0/genuine/{copied.name} = .*copy\.png"):
        data.read(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root / "writer_0"), "5 or more"),
        (lambda root: (root / "writer_1/genuine/x.png").write_bytes(b"no"), "x.png: no picture"),
        (
            lambda root: Image.new("L", (50, 50), 255).save(root / "writer_1/genuine/x.png"),
            "x.png: it is blank",
        ),
        (lambda root: shutil.rmtree(root / "writer_2/forged"), "writer_2 has 0 forged"),
        (
            lambda root: [f.unlink() for f in sorted((root / "writer_3/genuine").iterdir())[1:]],
            "writer_3 has 1 genuine signatures, 2 or more",
        ),
        (lambda root: [shutil.rmtree(each) for each in root.iterdir()], "neither"),
    ],
    ids=["few writers", "no picture", "blank", "no forgery", "one genuine", "empty"],
)
def test_a_folder_that_will_not_do_says_why(spoil, message, tmp_path):
    write_folders(tmp_path, writers=5)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        data.read(tmp_path)


def test_over_the_folds_each_writer_is_tested_once_and_never_seen_before():
    tested = []
    for fold in range(data.FOLDS):
        training, validation, test = data.split(np.arange(55), fold)
        assert (len(training), len(validation), len(test)) == (33, 11, 11)
        assert len({*training, *validation, *test}) == 55
        tested += test.tolist()
    assert sorted(tested) == list(range(55))


@pytest.mark.realdata
def test_real_cedar_is_whole_and_no_signature_is_there_twice(real_data):
    found, _ = data.read(Path(os.environ["LABKIT_DATA"]) / "cedar")
    assert len(found) == 2640
    assert data.duplicates(found.x) == []
    for writer in range(55):
        own = found.writers == writer
        assert np.bincount(found.hands[own]).tolist() == [24, 8, 8, 8]


# --- verify.py -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A smoke run's home, without MLflow."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HOME", str(home))
        patch.delenv("LABKIT_DATA", raising=False)
        train.main(["--smoke", "--data", "sample"])
    return home


@pytest.fixture
def ask(trained, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LABKIT_HOME", str(trained))
    monkeypatch.chdir(tmp_path)

    def ask(*pictures: Image.Image | str) -> tuple[int, str]:
        names = []
        for index, each in enumerate(pictures):
            name = each if isinstance(each, str) else f"{index}.{'jpg' if index % 2 else 'png'}"
            if not isinstance(each, str):
                each.save(name)
            names.append(name)
        with pytest.raises(SystemExit) as stop:
            verify.main(names)
        captured = capsys.readouterr()
        return stop.value.code, captured.out + captured.err

    return ask


def drawn(index: int) -> Image.Image:
    return Image.fromarray(picture(index))


def test_a_query_is_answered_with_the_error_rates_of_its_threshold(ask, tmp_path):
    photograph = drawn(3).convert("RGB").resize((1300, 600)).rotate(2, fillcolor="white")
    code, text = ask(drawn(0), drawn(1), drawn(2), photograph)
    assert code in (0, 1)
    assert ("accepted" if code == 0 else "refused") in text
    assert "with 3 references" in text
    assert "% of skilled forgeries" in text
    with Image.open(tmp_path / "verified.png") as shown:
        assert shown.width > 300


def test_the_reference_itself_is_accepted_and_another_writers_is_not(ask):
    assert ask(drawn(0), drawn(0))[0] == 0
    other = next(index for index, (writer, *_) in enumerate(DRAWN) if writer == 4)
    code, text = ask(drawn(0), drawn(other))
    assert code == 1, text


@pytest.mark.parametrize(("limit", "said"), [(0.01, True), (2.0, False)])
def test_what_looks_unlike_the_training_is_said(limit, said, ask, trained, monkeypatch):
    read = json.loads
    monkeypatch.setattr(json, "loads", lambda text: read(text) | {"novelty": {"distance": limit}})
    _, text = ask(drawn(0), drawn(1))
    assert ("looks unlike what was trained on" in text) == said


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([drawn(0)], "PICTURES must be 2 or more"),
        ([drawn(0), "absent.png"], "absent.png"),
        ([drawn(0), Image.new("L", (90, 50), 255)], "blank"),
        ([page_of_text(), drawn(0)], "page of text"),
    ],
    ids=["one", "absent", "blank", "text"],
)
def test_what_cannot_be_judged_is_refused_with_exit_code_2(ask, pictures, message):
    code, text = ask(*pictures)
    assert code == 2
    assert message in text
    assert "Traceback" not in text
