"""TP4's losses and metrics: hand-made masks, loops, closed forms, SciPy; and what misleads."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.spatial.distance import directed_hausdorff

import labkit
from tp4_unet_conv3d import losses, metrics
from tp4_unet_conv3d.losses import LOSSES
from tp4_unet_conv3d.models import build_unet


@pytest.fixture(autouse=True, scope="module")
def seed():
    labkit.prepare(0)


def blank(count: int = 1, side: int = 16) -> np.ndarray:
    return np.zeros((count, side, side), bool)


def random_masks(count: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Blobs of every size and their noisy copies: probabilities (n, s, s) and masks."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    centre, radius = rng.uniform(0, side, (2, count, 1, 1)), rng.uniform(0.6, side / 2, count)
    truth = np.hypot(rows - centre[0], columns - centre[1]) < radius[:, None, None]
    probabilities = np.clip(truth * 0.7 + rng.uniform(0, 0.4, truth.shape), 0, 1)
    return probabilities.astype(np.float32), truth


def dice_by_hand(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Sets of coordinates, one image."""
    a, b = set(zip(*np.nonzero(predicted), strict=True)), set(zip(*np.nonzero(truth), strict=True))
    return 2 * len(a & b) / (len(a) + len(b))


# --- Dice and IoU --------------------------------------------------------------------------------


def test_hand_made_masks():
    truth, predicted = blank(5), blank(5)
    truth[:4, 2:6, 2:6] = True  # 16 pixels; the fifth image has none
    predicted[0, 2:6, 2:6] = True  # exact
    predicted[1, 2:6, 4:8] = True  # half of it, and as much beside it
    predicted[2, 10:12, 10:12] = True  # elsewhere
    predicted[4, 0, 0] = True  # a false alarm
    dice, iou = metrics.overlap(predicted, truth)
    np.testing.assert_allclose(dice, [1, 0.5, 0, 0, np.nan])
    np.testing.assert_allclose(iou, [1, 1 / 3, 0, 0, np.nan])
    assert metrics.kept_empty(predicted, truth) == (0, 1)
    assert metrics.kept_empty(blank(5), truth) == (1, 1)


@pytest.mark.parametrize("seed", range(3))
def test_dice_is_two_iou_over_one_plus_iou(seed):
    probabilities, truth = random_masks(40, 24, seed)
    predicted = probabilities > 0.35
    dice, iou = metrics.overlap(predicted, truth)
    np.testing.assert_allclose(dice, 2 * iou / (1 + iou))
    assert (np.argsort(dice) == np.argsort(iou)).all()  # one image: never another ranking
    expected = [dice_by_hand(*pair) for pair in zip(predicted, truth, strict=True)]
    np.testing.assert_allclose(dice, expected)


def test_means_of_dice_and_iou_may_rank_differently():
    """The same network on all images, or a perfect one that fails on some."""
    steady, uneven = np.full(10, 0.6), np.array([1.0] * 5 + [0.1] * 5)  # IoU
    assert steady.mean() > uneven.mean()
    alike = np.full(10, 0.54)
    assert alike.mean() < uneven.mean()  # IoU prefers the uneven one,
    assert np.mean(2 * alike / (1 + alike)) > np.mean(2 * uneven / (1 + uneven))  # Dice does not


def test_a_batch_that_is_flattened_hides_a_missed_object():
    truth = blank(2, 128)
    truth[0, 10:110, 10:110] = True
    truth[1, 60:66, 60:66] = True
    predicted = truth.copy()
    predicted[1] = False  # the small object is missed altogether
    flattened = 2 * (truth & predicted).sum() / (truth.sum() + predicted.sum())
    dice, _ = metrics.overlap(predicted, truth)
    assert flattened == pytest.approx(0.998, abs=5e-4)
    assert dice.mean() == 0.5
    metric = metrics.Dice()
    metric.update_state(truth[..., None], predicted[..., None].astype(np.float32))
    assert float(metric.result()) == 0.5


def test_slices_of_a_patient_are_one_volume():
    probabilities, truth = random_masks(12, 16, 0)
    truth[[1, 5]] = False
    predicted = probabilities > 0.3
    groups = np.repeat([0, 1, 2], 4)
    dice, iou = metrics.overlap(predicted, truth, groups)
    for patient in range(3):
        chosen = groups == patient
        expected = dice_by_hand(predicted[chosen], truth[chosen])
        assert dice[patient] == pytest.approx(expected)
        assert iou[patient] == pytest.approx(expected / (2 - expected))


def test_masks_of_other_kinds_are_refused():
    with pytest.raises(ValueError, match="bool"):
        metrics.overlap(blank().astype(float), blank())
    with pytest.raises(ValueError, match="one shape"):
        metrics.overlap(blank(2), blank(1))


@pytest.mark.parametrize("threshold", [0.5, 0.3, None])
def test_keras_metrics_are_the_means_over_images_in_any_batches(threshold):
    probabilities, truth = random_masks(20, 16, 1)
    truth[[3, 11]] = False  # no target: left out
    predicted = probabilities if threshold is None else probabilities > threshold
    both = (predicted * truth).sum(axis=(1, 2))[truth.any(axis=(1, 2))]
    sizes = (predicted.sum(axis=(1, 2)) + truth.sum(axis=(1, 2)))[truth.any(axis=(1, 2))]
    expected = {"dice": np.mean(2 * both / sizes), "iou": np.mean(both / (sizes - both))}
    for metric in (metrics.Dice(threshold), metrics.IoU(threshold)):
        for start in (0, 8, 16):
            rows = slice(start, start + 8)
            metric.update_state(truth[rows, ..., None], probabilities[rows, ..., None])
        assert float(metric.result()) == pytest.approx(expected[metric.name], rel=1e-5)
        metric.reset_state()
        assert float(metric.result()) == 0
        again = type(metric).from_config(metric.get_config())
        assert again.threshold == threshold


def test_weights_count_images():
    truth = blank(2)
    truth[:, 2:6, 2:6] = True
    predicted = truth.astype(np.float32)
    predicted[1] = 0
    metric = metrics.IoU()
    metric.update_state(truth[..., None], predicted[..., None], sample_weight=np.array([3.0, 1.0]))
    assert float(metric.result()) == 0.75


def test_the_chosen_threshold_has_the_highest_mean_dice():
    probabilities, truth = random_masks(15, 16, 2)
    means = {
        float(t): np.mean(
            [dice_by_hand(c > t, m) for c, m in zip(probabilities, truth, strict=True)]
        )
        for t in metrics.THRESHOLDS
    }
    assert metrics.choose_threshold(probabilities, truth) == max(means, key=means.get)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = metrics.bootstrap_interval(rng.exponential(1, 40), draws=300, seed=trial)
        covered += low < 1 < high
    assert 0.86 < covered / 200 < 0.99


# --- Contours ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_hausdorff_against_scipys(seed):
    probabilities, truth = random_masks(10, 24, seed)
    predicted = np.roll(probabilities > 0.35, 2, axis=1)
    for index, distance in enumerate(metrics.hausdorff(predicted, truth, percentile=100)):
        first, second = (np.argwhere(contour_by_hand(mask[index])) for mask in (predicted, truth))
        if not len(first) or not len(second):
            assert np.isnan(distance)
            continue
        expected = max(directed_hausdorff(first, second)[0], directed_hausdorff(second, first)[0])
        assert distance == pytest.approx(expected)


def contour_by_hand(mask: np.ndarray) -> np.ndarray:
    found, padded = np.zeros_like(mask), np.pad(mask, 1)
    for row, column in np.argwhere(mask):
        cross = padded[row, column + 1], padded[row + 2, column + 1]
        found[row, column] = not all((*cross, padded[row + 1, column], padded[row + 1, column + 2]))
    return found


def test_95_percent_forgives_one_far_pixel():
    truth = blank(1, 64)
    truth[0, 10:40, 10:40] = True
    predicted = truth.copy()
    predicted[0, 60, 60] = True
    assert metrics.hausdorff(predicted, truth, 100)[0] == pytest.approx(np.hypot(21, 21))
    assert metrics.hausdorff(predicted, truth)[0] == 0
    assert np.isnan(metrics.hausdorff(blank(1, 64), truth)[0])


def test_boundary_f1_by_hand():
    truth, predicted = blank(4, 32), blank(4, 32)
    truth[:3, 8:20, 8:20] = True
    predicted[0] = truth[0]
    predicted[1, 8:20, 11:23] = True  # three pixels to the right
    assert metrics.boundary_f1(predicted, truth)[0] == 1
    shifted = metrics.boundary_f1(predicted, truth, 3)[1]
    assert shifted == 1
    # Of 44 contour pixels, on either side: the far column's 12, and 1 beside it in each row.
    far = 44 - sum(
        np.abs(other - pixel).sum() <= 2 or np.hypot(*(other - pixel)) <= 2
        for pixel in np.argwhere(contour_by_hand(truth[1]))
        for other in [nearest(pixel, np.argwhere(contour_by_hand(predicted[1])))]
    )
    assert metrics.boundary_f1(predicted, truth, 2)[1] == pytest.approx(1 - far / 44)
    assert metrics.boundary_f1(predicted, truth)[2] == 0  # an empty prediction
    assert np.isnan(metrics.boundary_f1(predicted, truth)[3])  # nothing to find


def nearest(pixel: np.ndarray, others: np.ndarray) -> np.ndarray:
    return others[np.argmin(np.hypot(*(others - pixel).T))]


# --- Objects and probabilities -------------------------------------------------------------------


def test_objects_by_hand():
    instances = np.zeros((2, 40, 40), np.uint8)
    instances[0, 5:15, 5:15] = 1  # touches the second
    instances[0, 5:15, 15:19] = 2
    instances[0, 30:34, 30:34] = 3
    predicted = blank(2, 40)
    predicted[0, 5:15, 5:17] = True  # the first and half of the second
    predicted[0, 30:34, 35] = True  # beside the third, near enough to be taken for it
    predicted[0, 39, 0] = True  # far from all
    found = metrics.objects(predicted, instances)
    np.testing.assert_array_equal(found.area, [100, 40, 16])
    np.testing.assert_allclose(found.found, [1, 0.5, 0])
    np.testing.assert_allclose(found.dice, [1, 2 * 20 / 60, 0])
    assert found.missed() == (1, 3)
    assert found.missed(below=41) == (1, 2)
    assert metrics.objects(blank(2, 40), instances * 0).missed() == (0, 0)


def test_regions_are_numbered():
    masks = blank(1, 8)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 5, 5] = True
    assert metrics.number_regions(masks).max() == 2


def test_more_regions_than_a_byte_counts():
    mask = np.zeros((1, 64, 64), bool)
    mask[0, ::2, ::2] = True  # 1,024 single pixels
    assert metrics.number_regions(mask).max() == 1024


def test_calibration_of_a_calibrated_prediction_is_near_zero():
    rng = np.random.default_rng(0)
    probabilities = rng.random((10, 100, 100))
    truth = rng.random(probabilities.shape) < probabilities
    assert metrics.calibration_error(probabilities, truth) < 0.01
    assert metrics.calibration_error(probabilities, rng.random(probabilities.shape) < 0.5) > 0.2
    mean, share, count = metrics.reliability(np.array([[[0.0, 1.0, 0.98]]]), np.ones((1, 1, 3)))
    assert count.sum() == 3
    assert count[-1] == 2
    assert (mean[-1], share[-1]) == (0.99, 1)


# --- Losses --------------------------------------------------------------------------------------


def closed_form(name: str, p: np.ndarray, y: np.ndarray) -> float:
    """The losses of one image, written anew in NumPy and float64."""
    entropy = np.mean(np.where(y, -np.log(p), -np.log(1 - p)))
    dice = (2 * p[y].sum() + 1) / (p.sum() + y.sum() + 1)
    missed, false = (1 - p[y]).sum(), p[~y].sum()
    return {
        "bce": entropy,
        "dice": 1 - dice,
        "bce+dice": entropy + 1 - dice,
        "tversky": 1 - (p[y].sum() + 1) / (p[y].sum() + 0.3 * false + 0.7 * missed + 1),
        "focal": np.mean(
            np.where(y, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p))
        ),
        "focal75": np.mean(
            np.where(y, -0.75 * (1 - p) ** 2 * np.log(p), -0.25 * p**2 * np.log(1 - p))
        ),
    }[name]


@pytest.mark.parametrize("name", LOSSES)
def test_losses_against_closed_forms(name):
    probabilities, truth = random_masks(6, 16, 3)
    probabilities = np.clip(probabilities, 0.01, 0.99).astype(np.float64)
    truth[2] = False
    expected = [closed_form(name, p, y) for p, y in zip(probabilities, truth, strict=True)]
    loss = LOSSES[name]()
    values = loss.call(truth[..., None], probabilities[..., None])
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    assert float(loss(truth[..., None], probabilities[..., None])) == pytest.approx(
        np.mean(expected)
    )
    logits = np.log(probabilities) - np.log1p(-probabilities)
    values = LOSSES[name](from_logits=True).call(truth[..., None], logits[..., None])
    np.testing.assert_allclose(values, expected, rtol=1e-4)


@pytest.mark.parametrize(("loss", "expected"), [("bce", 1.0), ("focal", 0.25), ("focal75", 0.75)])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_altogether_wrong_pulls_hardest(loss, expected, sign):
    """At a logit of 20 on the wrong side the slope of cross-entropy is 1."""
    import tensorflow as tf

    truth = np.full((1, 1, 1, 1), sign > 0, np.float32)
    logit = tf.Variable(np.full((1, 1, 1, 1), -20.0 * sign, np.float32))
    with tf.GradientTape() as tape:
        value = LOSSES[loss](from_logits=True)(truth, logit)
    weight = expected if sign > 0 or loss == "bce" else 1 - expected
    assert float(tape.gradient(value, logit)[0, 0, 0, 0]) == pytest.approx(-sign * weight)


def test_cross_entropies_are_keras_own():
    probabilities, truth = random_masks(4, 16, 4)
    y, p = truth[..., None].astype(np.float32), probabilities[..., None]
    expected = keras.losses.BinaryCrossentropy()(y, p)
    assert float(LOSSES["bce"]()(y, p)) == pytest.approx(float(expected), rel=1e-3)
    focal = keras.losses.BinaryFocalCrossentropy(apply_class_balancing=True)(y, p)
    assert float(LOSSES["focal"]()(y, p)) == pytest.approx(float(focal), rel=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_a_missed_small_object_still_pulls(name):
    """In a batch with a large object that is right, the missed one has a gradient upwards."""
    import tensorflow as tf

    truth = blank(2, 64)
    truth[0, 5:60, 5:60] = True
    truth[1, 30:34, 30:34] = True
    probabilities = np.where(truth, 0.99, 0.01).astype(np.float32)
    probabilities[1] = 0.01
    predicted = tf.Variable(probabilities[..., None])
    with tf.GradientTape() as tape:
        value = LOSSES[name]()(truth[..., None].astype(np.float32), predicted)
    gradient = tape.gradient(value, predicted).numpy()[..., 0]
    assert np.isfinite(gradient).all()
    assert (gradient[1][truth[1]] < -1e-4).all()
    assert abs(gradient[1][truth[1]]).mean() > abs(gradient[0]).mean()


@pytest.mark.parametrize("name", LOSSES)
def test_certain_predictions_have_finite_losses(name):
    truth = blank(2)
    truth[0, 3:9, 3:9] = True
    y = truth[..., None].astype(np.float32)
    right, wrong = float(LOSSES[name]()(y, y)), float(LOSSES[name]()(y, 1 - y))
    assert abs(right) < 1e-5
    assert 0.5 < wrong < 20


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="masks and predictions"):
        LOSSES["dice"]()(np.zeros((2, 8, 8)), np.zeros((2, 8, 8, 1)))
    with pytest.raises(ValueError, match="masks and predictions"):
        LOSSES["dice"]().call(np.zeros((2, 8, 8, 1)), np.zeros((2, 8, 8, 3)))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_rebuilt_from_their_configuration(name):
    loss = LOSSES[name]()
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


def test_a_compiled_model_is_saved_and_loaded(tmp_path):
    model = build_unet(2, depth=1)
    loss = losses.Tversky()
    model.compile("adam", loss=loss, metrics=[metrics.Dice(0.4), metrics.IoU()])
    probabilities, truth = random_masks(4, 128, 5)
    x, y = probabilities[..., None], truth[..., None].astype(np.float32)
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    found = again.evaluate(x, y, verbose=0, return_dict=True)
    assert set(found) == {"loss", "dice", "iou"}
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-5)
