"""TP3's demonstrations: truth of the generated images, box arithmetic, networks that learn."""

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from matplotlib import pyplot as plt
from scipy import ndimage

import labkit
from tp3_cnn_resnet import box_demo, boxes, segmentation_demo, shapes
from tp3_cnn_resnet.boxes import Detections, average_precision, suppress
from tp3_cnn_resnet.models import to_input

DEMOS = pytest.mark.parametrize("script", [segmentation_demo, box_demo])


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Boxes of 60 images, (60,) of (shapes, 5)."""
    return shapes.scenes("train", 60)[2]


# --- Images --------------------------------------------------------------------------------------


def test_boxes_are_the_extents_of_the_masks():
    _, masks, truth = shapes.scenes("train", 60)
    for mask, rows in zip(masks, truth, strict=True):
        areas, count = ndimage.label(mask > 0, np.ones((3, 3)))
        found = set()
        for number, (down, across) in enumerate(ndimage.find_objects(areas), start=1):
            values = np.unique(mask[areas == number])
            assert len(values) == 1  # shapes don't touch
            found.add((across.start, down.start, across.stop, down.stop, values[0] - 1))
        assert count == len(rows) >= 1
        assert found == set(map(tuple, rows))


@DEMOS
def test_parts_share_no_image_and_repeat(script):
    data, again = (script.load("auto", smoke=True) for _ in range(2))
    parts = {part: getattr(data, part) for part in shapes.PARTS}
    seen = [image.tobytes() for part in parts.values() for image in part.x]
    assert len(set(seen)) == len(seen) == 64 + 16 + 16
    for name, part in parts.items():
        np.testing.assert_array_equal(part.x, getattr(again, name).x)
        assert all(map(np.array_equal, part.y, getattr(again, name).y))


def test_no_two_shapes_have_one_cell():
    truth = shapes.scenes("train", 200)[2]
    assert box_demo.encode(truth)[..., 0].sum() == sum(map(len, truth))


# --- Boxes ---------------------------------------------------------------------------------------


def random_boxes(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 20, (count, 2))
    return np.hstack([corners, corners + rng.integers(1, 12, (count, 2))])


def counted_iou(first: np.ndarray, second: np.ndarray) -> float:
    """IoU by counting pixels."""
    canvas = np.zeros((2, 60, 60), bool)
    for area, (left, top, right, bottom) in zip(canvas, (first, second), strict=True):
        area[int(top) : int(bottom), int(left) : int(right)] = True
    return canvas.all(axis=0).sum() / canvas.any(axis=0).sum()


def test_iou_against_counted_pixels():
    first, second = random_boxes(12, 0), random_boxes(9, 1)
    expected = [[counted_iou(a, b) for b in second] for a in first]
    np.testing.assert_allclose(boxes.iou(first, second), expected)
    assert boxes.iou(first, second[:0]).shape == (12, 0)


@pytest.mark.parametrize("seed", range(5))
def test_suppression_against_its_recursive_definition(seed):
    """A box stays if and only if no surer box that stays overlaps it."""
    rng = np.random.default_rng(seed)
    found = Detections(random_boxes(25, seed), rng.permutation(25) / 25, np.zeros(25, int))

    def stays(index: int) -> bool:
        return not any(
            found.scores[other] > found.scores[index]
            and counted_iou(found.boxes[other], found.boxes[index]) > 0.3
            and stays(other)
            for other in range(25)
        )

    kept = suppress(found, 0.3)
    assert set(kept.scores) == {found.scores[i] for i in range(25) if stays(i)}
    assert len(kept.scores) < 25


def detections(*rows: tuple[tuple[int, int, int, int], float]) -> Detections:
    found = np.array([box for box, _ in rows], float).reshape(-1, 4)
    return Detections(found, np.array([score for _, score in rows]), np.zeros(len(rows), int))


A, B, C = (0, 0, 10, 10), (20, 20, 30, 30), (0, 20, 10, 30)


def precision_of(found: list[Detections], *truth: tuple) -> float:
    return average_precision(found, [np.array(rows, float).reshape(-1, 4) for rows in truth])


def test_average_precision_of_hand_made_cases():
    assert precision_of([detections((A, 0.9), (B, 0.8))], (A, B)) == 1
    assert precision_of([detections((A, 0.9))], (A, B)) == 0.5  # one is missed
    assert precision_of([detections((C, 0.9))], (A,)) == 0
    assert precision_of([detections()], (A,)) == 0
    # Surest wrong: precisions 0, 1/2, 2/3; made monotone 2/3 at both recalls.
    assert precision_of([detections((C, 0.9), (A, 0.8), (B, 0.7))], (A, B)) == pytest.approx(2 / 3)
    # A second box for the same shape is wrong: precisions 1, 1/2, 2/3.
    twice = detections((A, 0.9), (A, 0.8), (B, 0.7))
    assert precision_of([twice], (A, B)) == pytest.approx((1 + 2 / 3) / 2)
    # Boxes of one image don't match another's, and scores are ranked over all images.
    two = [detections((B, 0.9)), detections((B, 0.5))]
    assert precision_of(two, (A,), (B,)) == pytest.approx(0.5 * 0.5)


def test_average_precision_needs_half_of_the_area():
    half, less = (0, 0, 10, 5), (0, 0, 10, 4)
    assert precision_of([detections((half, 0.9))], (A,)) == 1
    assert precision_of([detections((less, 0.9))], (A,)) == 0


def test_cells_give_their_boxes_back(truth):
    targets = box_demo.encode(truth)
    predictions = np.full((len(targets), 12, 12, 8), -20.0)
    inside = np.clip(targets[..., :5], 1e-6, 1 - 1e-6)
    predictions[..., :5] = np.log(inside / (1 - inside))
    predictions[..., 5:] = 9 * np.eye(3)[targets[..., 5].astype(int)]
    found = [suppress(one) for one in box_demo.decode(predictions)]
    metrics = box_demo.examine(found, truth)
    assert metrics["box_ap"] == metrics["ap"] == 1
    assert metrics["iou"] == pytest.approx(1, abs=1e-3)
    assert metrics["boxes_per_image"] == np.mean(list(map(len, truth)))


def test_detector_is_compared_with_the_true_boxes_of_the_test_images():
    data = box_demo.load("auto", smoke=True)
    boxes_of = [rows[:, :4] for rows in data.test.y]
    labels = [rows[:, 4].astype(int) for rows in data.test.y]
    kept = [Detections(b, np.ones(len(b)), own) for b, own in zip(boxes_of, labels, strict=True)]
    moved = [Detections(one.boxes + 2, one.scores, (one.labels + 1) % 3) for one in kept]
    metrics = box_demo.evaluate(moved, kept, data)
    assert metrics["box_ap"] == metrics["ap"] == metrics["iou"] == 1
    assert metrics["unsuppressed_ap"] == 0  # all classes are wrong
    best = [max(counted_iou(box, other + 2) for other in rows) for rows in boxes_of for box in rows]
    assert metrics["unsuppressed_iou"] == pytest.approx(np.mean(best))
    assert 0 < metrics["floor_mean_iou"] < metrics["floor_colour_iou"] < 1
    shown = box_demo.table(metrics)
    assert f"| detector, all cells' boxes | {metrics['unsuppressed_box_ap']:.3f} | 0.000" in shown


def test_joint_loss_against_loops(truth):
    rng = np.random.default_rng(0)
    targets = box_demo.encode(truth)[:3]
    predictions = rng.normal(size=(3, 12, 12, 8)).astype(np.float32)
    expected = np.zeros(3)
    for place in np.ndindex(3, 12, 12):
        wanted, given = targets[place], predictions[place].astype(float)
        probability = 1 / (1 + np.exp(-given[:5]))
        expected[place[0]] -= np.log(probability[0] if wanted[0] else 1 - probability[0])
        if wanted[0]:
            logits = given[5:]
            expected[place[0]] += 10 * np.abs(probability[1:] - wanted[1:5]).sum()
            expected[place[0]] += np.log(np.exp(logits).sum()) - logits[int(wanted[5])]
    loss = box_demo.joint_loss(keras.ops.convert_to_tensor(targets), predictions)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_figure_shows_truth_then_all_boxes_then_those_kept():
    test = box_demo.load("auto", smoke=True).test
    raw = [detections((A, 0.9), (B, 0.8), (C, 0.25))] * 2
    figure = box_demo.boxes_figure(test, raw, [one.only(np.array([1, 2])) for one in raw], count=2)
    texts = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    for column in range(2):
        assert texts[column] == [shapes.CLASSES[int(row[4])] for row in test.y[column]]
        assert texts[2 + column] == []  # names would hide each other
        assert len(figure.axes[2 + column].lines) == 2 * 3
        assert texts[4 + column] == ["disc 80%"]  # and not the one at 25 %
    left, top = test.y[0][0, :2]
    assert figure.axes[0].lines[0].get_xydata()[0].tolist() == [left, top]
    plt.close(figure)


# --- Segmentation --------------------------------------------------------------------------------


def test_iou_of_masks_and_contours_by_hand():
    truth = np.array([[[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]])
    moved = np.roll(truth, 1, axis=1)
    assert segmentation_demo.class_iou(moved, truth, 1) == pytest.approx(2 / 6)
    expected = np.ones((1, 5, 4), bool)
    expected[:, 4] = False
    np.testing.assert_array_equal(segmentation_demo.near_contours(truth), expected)


def test_masks_are_compared_with_the_truth_of_the_test_images():
    data = segmentation_demo.load("auto", smoke=True)
    truth = data.test.y
    moved = np.roll(truth, 3, axis=1)
    probabilities = np.stack([np.eye(4)[moved], np.eye(4)[truth]], axis=-2)
    probabilities[0, 0, 0] *= 1.25
    metrics = segmentation_demo.evaluate(probabilities, data)
    for name in ("iou", "pixel_accuracy", "contour_accuracy", "shape_iou"):
        assert metrics[f"{name}_with_skip"] == 1
    assert metrics["largest_sum_error"] == 0.25
    for value, shape in enumerate(shapes.CLASSES, start=1):
        pairs = list(zip(moved.ravel().tolist(), truth.ravel().tolist(), strict=True))
        both = sum(pair == (value, value) for pair in pairs)
        either = sum(value in pair for pair in pairs)
        assert metrics[f"iou_{shape}_without_skip"] == pytest.approx(both / either)
    assert metrics["pixel_accuracy_without_skip"] == np.mean([a == b for a, b in pairs])
    assert metrics["floor_background_pixel_accuracy"] == np.mean([b == 0 for _, b in pairs])
    shown = segmentation_demo.table(metrics)
    assert f"| without skip | {metrics['iou_without_skip']:.3f} |" in shown
    assert f"|  |  |  | {metrics['floor_colour_shape_iou']:.3f} |" in shown


def test_networks_are_equal_but_for_the_skip():
    labkit.prepare(0)
    inputs = keras.Input((48, 48, 3))
    networks = [
        keras.Model(inputs, segmentation_demo.probabilities_of(inputs, skip))
        for skip in (False, True)
    ]
    shapes_of = [[weight.shape for weight in network.weights] for network in networks]
    assert shapes_of[0] == shapes_of[1]
    assert networks[0].output.shape == networks[1].output.shape == (None, 48, 48, 4)


def test_figure_shows_images_truth_and_both_predictions():
    test = segmentation_demo.load("auto", smoke=True).test
    predicted = np.stack([np.zeros_like(test.y), test.y], axis=-1)
    figure = segmentation_demo.comparison_figure(test, predicted, count=2)
    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes]
    for column in range(2):
        image, truth, without_skip, with_skip = shown[column::2]
        np.testing.assert_array_equal(image, test.x[column])
        np.testing.assert_array_equal(truth, with_skip)
        assert len(np.unique(truth.reshape(-1, 3), axis=0)) == len(np.unique(test.y[column]))
        assert len(np.unique(without_skip.reshape(-1, 3), axis=0)) == 1
    plt.close(figure)


# --- Floors --------------------------------------------------------------------------------------


def blotted(contrast: int, blot: int, script) -> labkit.Part:
    """Black images with a shape of each class, and a larger blot that is none, nearer to black."""
    images = np.zeros((3, 48, 48, 3), np.uint8)
    images[:, 2:16, 2:16] = contrast
    images[:, 22:46, 22:46] = blot
    masks, boxes = np.zeros((3, 48, 48), np.uint8), np.empty(3, object)
    for label in range(3):
        masks[label, 2:16, 2:16] = 1 + label
        boxes[label] = np.array([[2, 2, 16, 16, label]], np.float32)
    return labkit.Part(images, masks if script is segmentation_demo else boxes)


@DEMOS
def test_the_floors_threshold_is_the_best_one_of_the_validation_images(script):
    # In colour distance, root 3 times the grey: shape 90, blot 69; in the test images 50 and 10.
    validation, test = blotted(52, 40, script), blotted(29, 6, script)
    data = replace(script.load("auto", smoke=True), validation=validation, test=test)
    if script is segmentation_demo:
        metrics = script.evaluate(np.eye(4)[np.repeat(test.y[..., None], 2, axis=-1)], data)
        quality = metrics["floor_colour_shape_iou"]
    else:
        metrics = script.evaluate([detections()] * 3, [detections()] * 3, data)
        quality = metrics["floor_colour_box_ap"]
    assert 69 < metrics["threshold_floor_colour"] < 90
    assert quality == 0  # at that threshold nothing is found in the test images


# --- Learning ------------------------------------------------------------------------------------


def silent_run() -> SimpleNamespace:
    return SimpleNamespace(first_epoch=0, checkpoints=lambda model: keras.callbacks.Callback())


@DEMOS
def test_fit_sees_the_training_images_alone_and_validates_on_the_others(script):
    seen = {}
    model = SimpleNamespace(
        compile=lambda *given, **settings: None,
        fit=lambda batches, **settings: seen.update(settings, batches=batches),
    )
    data = script.load("auto", smoke=True)
    script.train(model, script.Config(seed=3), data, silent_run())
    encode = segmentation_demo.twice if script is segmentation_demo else box_demo.encode
    batches, (validation_x, validation_y) = seen["batches"], seen["validation_data"]
    assert sorted(batches.order) == list(range(64))
    x, y = map(np.concatenate, zip(*map(batches.__getitem__, range(len(batches))), strict=True))
    np.testing.assert_array_equal(x, to_input(data.train.x[batches.order]))
    np.testing.assert_array_equal(y, encode(data.train.y[batches.order]))
    np.testing.assert_array_equal(validation_x, to_input(data.validation.x))
    np.testing.assert_array_equal(validation_y, encode(data.validation.y))


def by_heart(script, batch_size: int, monkeypatch) -> tuple[keras.Model, labkit.Part]:
    """A network after 80 steps on four images, and these."""
    labkit.prepare(0)
    data = script.load("auto", smoke=True)
    few = labkit.Part(data.train.x[:4], data.train.y[:4])
    again = np.arange(10 * batch_size) % 4
    monkeypatch.setattr(script, "BATCH_SIZE", batch_size)
    model = script.build()
    data = replace(data, train=labkit.Part(few.x[again], few.y[again]), validation=few)
    script.train(model, script.Config(smoke=True), data, silent_run())
    return model, few


def test_segmentation_learns_a_few_images_by_heart(monkeypatch):
    model, few = by_heart(segmentation_demo, 16, monkeypatch)
    probabilities = model.predict(to_input(few.x), verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    predicted = probabilities.argmax(axis=-1)[..., 1]
    assert segmentation_demo.examine(predicted, few.y, "x")["iou_x"] > 0.8


def test_detector_learns_a_few_images_by_heart(monkeypatch):
    model, few = by_heart(box_demo, 4, monkeypatch)
    found = box_demo.decode(model.predict(to_input(few.x), verbose=0))
    assert box_demo.examine([suppress(one) for one in found], few.y)["box_ap"] > 0.8


@DEMOS
def test_real_data_is_refused(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(["--data", "real"])
    assert stop.value.code == 2
    assert "generated" in capsys.readouterr().err
