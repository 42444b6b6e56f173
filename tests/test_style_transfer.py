"""Style transfer: losses against loops, networks against SciPy, all kinds of images, failures."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from scipy.signal import correlate

import labkit
from tests.conftest import NOWHERE
from tp3_cnn_resnet import (
    style_features,
    style_pictures,
    style_transfer,
    train_features,
)
from tp3_cnn_resnet.pictures import draw

OWN = style_features.OWN_WEIGHTS


def tiny_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """A random network of two blocks in the layout of the `.npz` files."""
    rng = np.random.default_rng(seed)
    shapes = {"block1_conv1": (3, 5), "block1_conv2": (5, 6), "block2_conv1": (6, 7)}
    arrays = {
        "preprocess/kernel": rng.normal(size=(1, 1, 3, 3)),
        "preprocess/bias": rng.normal(size=3),
    }
    for name, (channels, filters) in shapes.items():
        arrays[f"{name}/kernel"] = rng.normal(0, 0.3, (3, 3, channels, filters))
        arrays[f"{name}/bias"] = rng.normal(0, 0.3, filters)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.npz"
    np.savez(path, **tiny_arrays())
    return path


@pytest.fixture
def noisy(tmp_path):
    """A picture file of smooth colours with an edge, 60x40."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 60, (40, 60, 3)).astype(np.uint8)
    pixels[:, 30:] += 150
    path = tmp_path / "noisy.png"
    Image.fromarray(pixels).save(path)
    return path


def fails(capsys, *argv) -> str:
    """The one line that `main(argv)` leaves with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        style_transfer.main([*map(str, argv), "--smoke"])
    assert stop.value.code == 2
    printed = capsys.readouterr().err.strip()
    assert "Traceback" not in printed
    return printed


# --- Losses --------------------------------------------------------------------------------------


def test_gram_against_loops():
    features = np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float32)
    expected = np.zeros((5, 5))
    for row in range(3):
        for column in range(4):
            for i in range(5):
                for j in range(5):
                    expected[i, j] += features[0, row, column, i] * features[0, row, column, j] / 12
    found = keras.ops.convert_to_numpy(style_transfer.gram(features))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gram_forgets_places():
    features = np.random.default_rng(0).normal(size=(1, 4, 4, 3)).astype(np.float32)
    shuffled = np.random.default_rng(1).permutation(features.reshape(16, 3)).reshape(1, 2, 8, 3)
    first, second = style_transfer.gram(features), style_transfer.gram(shuffled)
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_total_variation_by_hand():
    image = np.zeros((1, 3, 3, 3), np.float32)
    image[0, 1, 1] = 1
    # Of nine places one sees the dot below, one to the right; the dot itself changes both ways.
    expected = (1 + 1 + np.sqrt(2)) / 9
    assert float(style_transfer.total_variation(image)) == pytest.approx(expected, abs=2e-3)
    flat = style_transfer.total_variation(np.full((1, 5, 5, 3), 0.7, np.float32))
    assert float(flat) == pytest.approx(0, abs=1e-6)


def test_relative_error_by_hand():
    wanted = np.array([3.0, 4.0], np.float32)
    assert float(style_transfer.relative_error(wanted, wanted)) == 0
    assert float(style_transfer.relative_error(0 * wanted, wanted)) == pytest.approx(1)
    found = np.array([3.0, 9.0], np.float32)
    assert float(style_transfer.relative_error(found, wanted)) == pytest.approx(1)


def test_losses_of_identical_images_are_zero_and_the_whole_is_the_weighted_sum(tiny):
    network = style_features.find_network("auto", str(tiny))
    config = style_transfer.Config(style_weight=7.0, tv_weight=3.0)
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 1, 16, 20, 3), np.float32)
    extractor = style_transfer.create_extractor(network)
    same = style_transfer.make_losses(config, extractor, first, first)(first)
    assert float(same["content_loss"]) == pytest.approx(0, abs=1e-6)
    assert float(same["style_loss"]) == pytest.approx(0, abs=1e-6)
    parts = style_transfer.make_losses(config, extractor, first, second)(second)
    assert float(parts["content_loss"]) > 0.1
    assert float(parts["style_loss"]) == pytest.approx(0, abs=1e-6)
    parts = style_transfer.make_losses(config, extractor, first, second)(first)
    assert float(parts["style_loss"]) > 1e-4
    whole = parts["content_loss"] + 7 * parts["style_loss"] + 3 * parts["total_variation"]
    assert float(parts["loss"]) == pytest.approx(float(whole), rel=1e-5)


# --- Networks ------------------------------------------------------------------------------------


def test_npz_network_against_scipy(tiny):
    arrays = tiny_arrays()
    image = np.random.default_rng(5).random((1, 8, 6, 3), np.float32)

    def convolve(x, name):
        x = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="reflect")
        kernel, bias = arrays[f"{name}/kernel"], arrays[f"{name}/bias"]
        filters = range(kernel.shape[-1])
        maps = [correlate(x, kernel[..., f], mode="valid")[..., 0] + bias[f] for f in filters]
        return np.maximum(np.stack(maps, axis=-1), 0)

    x = image[0] @ arrays["preprocess/kernel"][0, 0] + arrays["preprocess/bias"]
    first = convolve(x, "block1_conv1")
    second = convolve(first, "block1_conv2")
    pooled = second.reshape(4, 2, 3, 2, 6).max(axis=(1, 3))
    third = convolve(pooled, "block2_conv1")

    network = style_features.find_network("auto", str(tiny))
    assert network.style_layers == ["block1_conv1", "block2_conv1"]
    assert network.content_layer == "block2_conv1"
    maps = style_transfer.create_extractor(network)(image)
    for found, expected in zip(maps, (first, third, third), strict=True):
        np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_deprocess_undoes_preprocess_and_clips_last():
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    features = style_features.preprocess(rgb.astype(np.float32) / 255)
    np.testing.assert_array_equal(style_features.deprocess(features), rgb)
    black = style_features.preprocess(np.zeros((1, 1, 3), np.float32))
    np.testing.assert_allclose(black[0, 0], [-103.939, -116.779, -123.68], rtol=1e-6)
    assert style_features.deprocess(black - 50).max() == 0
    assert style_features.deprocess(black + 999).min() == 255
    keras_form = keras.applications.vgg16.preprocess_input(rgb.astype(np.float32)[None])
    np.testing.assert_allclose(features, keras_form[0], atol=1e-3)


def vgg16_file(path, kernels):
    """Write `kernels` in the layout of Keras' published VGG16 file without top."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in ["input_1", *kernels, "block1_pool"]]
        for name in ("input_1", "block1_pool"):
            file.create_group(name).attrs["weight_names"] = np.zeros(0, "S1")
        for name, kernel in kernels.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}_W_1:0".encode(), f"{name}_b_1:0".encode()]
            group[f"{name}_W_1:0"] = kernel
            group[f"{name}_b_1:0"] = np.full(kernel.shape[-1], 0.01, np.float32)


def test_vgg16_is_read_from_keras_own_file(tmp_path, capsys):
    widths, channels, kernels = (64, 128, 256, 512, 512), 3, {}
    for block, (width, depth) in enumerate(zip(widths, (2, 2, 3, 3, 3), strict=True), 1):
        for number in range(1, depth + 1):
            kernel = np.zeros((3, 3, channels, width), np.float32)
            kernel[1, 1] = np.eye(channels, width)  # passes the first channels on
            kernels[f"block{block}_conv{number}"] = kernel
            channels = width
    path = tmp_path / "vgg16.h5"
    vgg16_file(path, kernels)
    network = style_features.find_network("auto", str(path))
    assert network.name == "vgg16"
    assert network.content_layer == "block5_conv2"
    assert network.style_layers == [f"block{number}_conv1" for number in range(1, 6)]
    image = np.full((1, 32, 32, 3), 0.9, np.float32)
    *_, content = style_transfer.create_extractor(network)(image)
    # Blue comes first, its mean is taken off, and each of twelve convolutions adds 0.01.
    assert content.shape == (1, 2, 2, 512)
    expected = 255 * 0.9 - np.array([103.939, 116.779, 123.68]) + 0.12
    np.testing.assert_allclose(content[0, 0, 0, :3], expected, rtol=1e-4)

    del kernels["block5_conv3"]
    vgg16_file(path, kernels)
    assert "no feature network" in fails(capsys, "--weights", path)


@pytest.mark.parametrize("damage", ["cut", "pickle", "array", "text", "shape", "nan", "empty"])
def test_damaged_npz_is_one_line(damage, tiny, capsys):
    arrays = tiny_arrays()
    if damage == "cut":
        tiny.write_bytes(tiny.read_bytes()[:900])
    elif damage == "pickle":
        arrays["block1_conv1/kernel"] = np.array([{"a": 1}], dtype=object)
        np.savez(tiny, **arrays)
    elif damage == "array":
        with tiny.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "text":
        tiny.write_text("no weights")
    elif damage == "empty":
        np.savez(tiny, other=np.zeros(3))
    else:
        value = np.zeros((3, 3, 4, 5)) if damage == "shape" else np.full((3, 3, 3, 5), np.nan)
        np.savez(tiny, **arrays | {"block1_conv1/kernel": value})
    printed = fails(capsys, "--weights", tiny)
    assert printed.startswith("error: --weights")
    assert "\n" not in printed


@pytest.fixture
def offline(monkeypatch):
    vgg16 = style_features.ORIGINS["vgg16"]
    monkeypatch.setitem(style_features.ORIGINS, "vgg16", replace(vgg16, url=f"{NOWHERE}/a.h5"))


def test_offline_uses_the_own_network_and_says_so(offline, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    damaged = tmp_path / style_features.ORIGINS["vgg16"].files[0]
    damaged.write_bytes(b"half a file")
    network = style_features.find_network()
    assert network.name == "cifar10_net"
    assert "not ImageNet" in network.label
    printed = capsys.readouterr().err
    assert f"warning: damaged data file, not used: {damaged}" in printed
    assert "trained on CIFAR-10" in printed
    assert f"{NOWHERE}/a.h5: " in printed
    assert printed.count("warning:") == 2
    with pytest.raises(SystemExit) as stop:
        style_features.find_network("real")
    assert stop.value.code == 2
    assert "--data real" in capsys.readouterr().err


def test_without_any_folder_it_uses_the_own_network_too(offline, monkeypatch, capsys):
    monkeypatch.delenv("LABKIT_DATA", raising=False)
    assert style_features.find_network().name == "cifar10_net"
    assert "LABKIT_DATA: not set" in capsys.readouterr().err


def test_networks_are_preferred_by_folder_then_in_their_order(offline, monkeypatch, tmp_path, tiny):
    """Each published file is replaced by a small one of its own, and put where it may lie."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    places = [tmp_path / "data" / "style_weights", tmp_path / "keras" / "models"]
    for seed, token in enumerate(("vgg19_distilled", "vgg19")):
        origin, place = style_features.ORIGINS[token], places[1 - seed]
        place.mkdir(parents=True)
        path = place / origin.files[0]
        np.savez(path, **tiny_arrays(1 + seed))
        digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(style_features.ORIGINS, token, replace(origin, digest=digest))
    network = style_features.find_network("real")
    assert network.name == "vgg19"  # the user's folder comes before the cache
    assert network.label == style_features.ORIGINS["vgg19"].name
    distilled = places[1] / style_features.ORIGINS["vgg19_distilled"].files[0]
    shutil.copy(distilled, places[0])
    network = style_features.find_network("real")
    assert network.name == "vgg19_distilled"
    sha256 = hashlib.sha256(distilled.read_bytes()).hexdigest()
    assert network.source == f"vgg19_distilled:{sha256[:8]}"
    shutil.copy(distilled, tmp_path / "renamed.npz")  # recognised by its hash
    assert style_features.find_network("real", str(tmp_path / "renamed.npz")).name == network.name
    with pytest.raises(SystemExit):
        style_features.find_network("real", str(tiny.with_name("nothing.npz")))
    assert style_features.find_network("auto", str(tiny)).name == "custom"


def test_the_shipped_network_says_what_it_is():
    arrays, about = style_features.read_npz(OWN)
    assert OWN.stat().st_size < 300_000
    assert about["data_source"].startswith("real:")
    assert float(about["test_accuracy"]) > 0.75  # 0.1 is chance
    assert style_features.convolutions(arrays)[-1] == "block4_conv1"


def test_the_shipped_network_can_be_trained_again(home, tmp_path):
    data = train_features.load("sample", smoke=True)
    features, _ = train_features.build_classifier(data.train.x, seed=0)
    scaled = features.get_layer("preprocess")(data.train.x.astype(np.float32) / 255)
    np.testing.assert_allclose(np.mean(scaled, axis=(0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(np.std(scaled, axis=(0, 1, 2)), 1, atol=1e-3)
    np.savez(tmp_path / "own.npz", **train_features.round_weights(features))
    network = style_features.find_network("auto", str(tmp_path / "own.npz"))
    assert network.layers == style_features.find_network("sample").layers
    image = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(network.model(image), features(image))  # what is saved is tested
    with pytest.raises(SystemExit):
        train_features.main(["--smoke", "--data", "sample", "--ship"])


def test_a_tenth_of_the_training_images_validates_the_same_for_every_seed():
    images = labkit.load_cifar10("sample")
    data = train_features.load("sample", smoke=False)
    assert (len(data.train), len(data.validation), len(data.test)) == (900, 100, 200)
    parts = [set(map(bytes, part.x)) for part in (data.train, data.validation, data.test)]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]
    assert parts[0] | parts[1] == set(map(bytes, images.x_train))


# --- Images --------------------------------------------------------------------------------------


def test_every_kind_of_image_is_read(tmp_path):
    base = Image.new("RGB", (4, 2), (200, 40, 40))
    grey16 = Image.fromarray(np.full((2, 4), 51400, np.uint16))
    clear = Image.new("RGBA", (4, 2), (200, 40, 40, 0))
    palette = base.quantize(4)
    kinds = {
        "rgb.png": (base, (200, 40, 40)),
        "grey.png": (Image.new("L", (4, 2), 99), (99, 99, 99)),
        "grey16.png": (grey16, (200, 200, 200)),
        "clear.png": (clear, (255, 255, 255)),
        "palette.png": (palette, (200, 40, 40)),
        "cmyk.tif": (Image.new("CMYK", (4, 2), (0, 255, 255, 0)), (255, 0, 0)),
        "bit.png": (Image.new("1", (4, 2), 1), (255, 255, 255)),
    }
    for name, (image, expected) in kinds.items():
        image.save(tmp_path / name)
        found = style_pictures.read_image(tmp_path / name, "content", 256)
        assert found.mode == "RGB", name
        assert found.getpixel((1, 1)) == expected, name
    palette.save(tmp_path / "hole.png", transparency=palette.getpixel((0, 0)))
    hole = style_pictures.read_image(tmp_path / "hole.png", "content", 256)
    assert hole.getpixel((1, 1)) == (255, 255, 255)


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    image.save(tmp_path / "turned.png", exif=exif)
    upright = style_pictures.read_image(tmp_path / "turned.png", "style", 256)
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == (255, 255, 255)
    assert upright.getpixel((10, 35)) == (0, 0, 0)


def test_bad_images_are_one_line(tmp_path, noisy, capsys, monkeypatch):
    missing = tmp_path / "nofile.jpg"
    assert fails(capsys, "--content", missing) == f"error: --content {missing} does not exist"
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    assert "--style" in fails(capsys, "--style", text)
    cut = tmp_path / "cut.png"
    cut.write_bytes(noisy.read_bytes()[:2000])
    assert "no image that can be read" in fails(capsys, "--content", cut)
    assert "no image that can be read" in fails(capsys, "--content", tmp_path)
    thin = tmp_path / "thin.png"
    Image.new("RGB", (500, 20)).save(thin)
    assert "would have 4 pixels, and 32 are needed" in fails(capsys, "--content", thin)
    monkeypatch.setattr(style_pictures, "LARGEST_FILE", 2000)
    assert "larger than" in fails(capsys, "--content", noisy)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "larger than" in fails(capsys, "--content", noisy)


@pytest.mark.parametrize(
    "arguments",
    ["--size 31", "--size 1025", "--steps 0", "--style-weight nan", "--tv-weight -1", "--seed -1",
     "--panel a.gif", "--panel nowhere/a.png", "--weights nofile.npz"],
)  # fmt: skip
def test_impossible_settings_name_the_flag(arguments, capsys):
    printed = fails(capsys, *arguments.split(), "--data", "sample")
    assert f"{arguments.split()[0]} " in printed


def test_plan_goes_from_coarse_to_fine_with_all_steps():
    pieces = style_pictures.plan((192, 256), 200)
    assert sum(count for _, count in pieces) == 200
    assert list(dict.fromkeys(size for size, _ in pieces)) == [64, 128, 256]
    assert style_pictures.plan((40, 60), 3) == [(60, 3)]
    assert [size for size, _ in style_pictures.plan((192, 256), 2)] == [128, 256]


def test_the_sample_images_are_what_the_code_draws(tmp_path):
    draw.main(["--folder", str(tmp_path)])
    for name in ("content.jpg", "style.jpg"):
        with Image.open(tmp_path / name) as drawn, Image.open(draw.FOLDER / name) as shipped:
            drawn, shipped = np.asarray(drawn, float), np.asarray(shipped, float)
        assert drawn.shape == shipped.shape == (480, 640, 3)
        assert np.mean(np.abs(drawn - shipped)) < 3  # other versions of libjpeg and NumPy


# --- The whole -----------------------------------------------------------------------------------


def test_transfer_changes_the_image_and_lowers_the_loss(tmp_path):
    panel = tmp_path / "panel.jpg"
    arguments = ["--data", "sample", "--size", "96", "--steps", "40", "--panel", str(panel)]
    metrics = style_transfer.main(arguments)
    assert metrics["style_loss"] < 0.5 * metrics["floor_style_loss_of_content"]
    assert metrics["content_loss"] < 0.5 * metrics["floor_content_loss_of_style"]
    assert metrics["ssim_content"] > metrics["floor_ssim_of_style"] + 0.05
    assert metrics["difference_from_content"] > 0.02
    assert metrics["difference_from_style"] > 0.05
    assert metrics["largest_rise"] < 0.01
    run = labkit.find_run("tp3_cnn_resnet.style_transfer")
    assert run.state["name"] == "cifar10_net-adam-gram+content+tv-s0"
    assert run.data_source.startswith("cifar10_net:")
    names = {path.name for path in run.folder.iterdir()}
    assert names >= {"result.png", "result_48.png", "panel.png", "losses.png", "report.md"}
    with Image.open(run.folder / "result.png") as result, Image.open(panel) as shown:
        assert result.size == (96, 72)
        assert shown.format == "JPEG"
        pixels = np.asarray(result, float) / 255
    with Image.open(style_transfer.PICTURES / "content.jpg") as content:
        small = style_pictures.resized(content, 72, 96)[0]
    difference = np.mean(np.abs(pixels - small))
    assert difference == pytest.approx(metrics["difference_from_content"], abs=3e-3)
    report = (run.folder / "report.md").read_text()
    assert "not ImageNet" in report
    assert f"| style loss | {metrics['style_loss']:.4f} |" in report


def test_the_result_has_the_form_of_the_content_and_is_compared_with_it(tiny, noisy, tmp_path):
    """Content and style are told apart by their sizes and colours, wherever they are used."""
    tall = tmp_path / "tall.png"
    Image.new("RGB", (40, 60), (250, 20, 20)).save(tall)
    settings = ["--weights", str(tiny), "--smoke"]
    metrics = style_transfer.main(["--content", str(noisy), "--style", str(tall), *settings])
    run = labkit.find_run("tp3_cnn_resnet.style_transfer")
    with Image.open(run.folder / "result.png") as result:
        assert result.size == (96, 64)
    assert (run.folder / "report.md").read_text().startswith("# noisy.png in the manner of tall")
    content = np.asarray(style_pictures.resized(Image.open(noisy), 64, 96))
    red = np.full_like(content, (250 / 255, 20 / 255, 20 / 255))
    assert metrics["floor_ssim_of_style"] == pytest.approx(style_pictures.ssim(red, content))
    assert metrics["floor_style_loss_of_content"] > 0.01
    assert metrics["floor_content_loss_of_style"] > 0.01
    assert metrics["difference_from_content"] < metrics["difference_from_style"]


def test_panel_shows_content_style_and_result_in_this_order():
    images = [np.full((1, 4, 5, 3), value, np.float32) for value in (0.1, 0.5, 0.9)]
    figure = style_pictures.panel_figure(images, "a network")
    assert [axis.get_title() for axis in figure.axes] == ["content", "style", "result"]
    for axis, image in zip(figure.axes, images, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), image[0])
    assert "a network" in figure.get_suptitle()
    plt.close(figure)


def test_curves_are_the_weighted_parts_and_mark_the_sizes():
    history = {
        "step": [5, 10, 15],
        "size": [48, 96, 96],
        "loss": [9, 6, 3],
        "content_loss": [1] * 3,
    }
    history |= {"style_loss": [3, 2, 1], "total_variation": [0, 0, 0]}
    figure = style_pictures.curves_figure(history, style_weight=2.0, tv_weight=6.0)
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert lines["style loss"].tolist() == [6, 4, 2]
    assert lines["loss"].tolist() == [9, 6, 3]
    assert "total variation" not in lines  # zeros have no logarithm
    assert figure.axes[0].lines[-1].get_xdata()[0] == 5.5
    assert "48 → 96 pixels" in figure.axes[0].get_title()
    plt.close(figure)


def test_interrupted_transfer_goes_on_as_if_nothing_had_happened(tiny, noisy, monkeypatch):
    """Stopped between two sizes, then within one: records 0 to 3 are two sizes of ten steps."""
    arguments = ["--content", str(noisy), "--weights", str(tiny), "--size", "96", "--steps", "20"]
    whole = style_transfer.main(arguments)
    expected = (labkit.find_run("tp3_cnn_resnet.style_transfer").folder / "result.png").read_bytes()
    record, calls = labkit.Run.record_epoch, []

    def stop_at_some(run, epoch, *rest):
        record(run, epoch, *rest)
        calls.append(epoch)
        if epoch in (1, 2):
            raise KeyboardInterrupt

    monkeypatch.setattr(labkit.Run, "record_epoch", stop_at_some)
    for more in ([], ["--resume"]):
        with pytest.raises(SystemExit) as stop:
            style_transfer.main([*arguments, *more])
        assert stop.value.code == 130
    again = style_transfer.main([*arguments, "--resume"])
    assert calls == [0, 1, 2, 3]
    for name in whole.keys() - {"train_seconds"}:
        assert again[name] == pytest.approx(whole[name], rel=1e-5, abs=1e-6), name
    run = labkit.find_run("tp3_cnn_resnet.style_transfer")
    assert run.history["step"] == [5, 10, 15, 20]
    assert (run.folder / "result.png").read_bytes() == expected


def test_largest_rise_by_hand():
    history = {"size": [1, 1, 2, 2, 2], "loss": [4, 3, 9, 6, 6.6]}
    assert style_pictures.largest_rise(history) == pytest.approx(0.1)
    assert style_pictures.largest_rise({"size": [1, 1], "loss": [2, 1]}) == 0


@pytest.mark.realdata
@pytest.mark.parametrize("token", ["vgg19_distilled", "vgg19"])
def test_real_networks_fall_and_keep_the_content(token, real_data, home):
    origin = style_features.ORIGINS[token]
    path = Path(os.environ["LABKIT_DATA"]) / origin.files[1]
    if not path.exists():
        pytest.skip(f"{path} is absent")
    arguments = ["--data", "real", "--weights", str(path), "--size", "96", "--steps", "20"]
    metrics = style_transfer.main(arguments)
    assert metrics["style_loss"] < 0.5 * metrics["floor_style_loss_of_content"]
    assert metrics["ssim_content"] > metrics["floor_ssim_of_style"]
    name = labkit.find_run("tp3_cnn_resnet.style_transfer").state["name"]
    assert name == f"{token}-adam-gram+content+tv-s0"
