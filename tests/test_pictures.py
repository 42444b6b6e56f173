"""Pictures of digits: decoded safely, brought into MNIST's form, read right."""

import io
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import labkit
from tp1_mnist_api import evaluate_pictures
from tp1_mnist_api.app import create_app
from tp1_mnist_api.drawings import WAYS
from tp1_mnist_api.serving import pictures
from tp1_mnist_api.serving.inputs import InputError
from tp1_mnist_api.serving.model_file import LAB, Model


@pytest.fixture(scope="module")
def client():
    return create_app(Model(LAB / "model" / "mnist.tflite")).test_client()


def encoded(picture: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def seven(ink=(0, 0, 0), paper=(255, 255, 255), size=300) -> Image.Image:
    """A 7 of straight strokes, drawn large, left of the middle."""
    picture = Image.new("RGB", (size, size), paper)
    scale = size / 300
    for (x0, y0), (x1, y1) in (((60, 60), (160, 60)), ((160, 60), (100, 230))):
        for step in np.linspace(0, 1, 200):
            x, y = (x0 + step * (x1 - x0)) * scale, (y0 + step * (y1 - y0)) * scale
            radius = max(1, round(9 * scale))
            box = (round(x - radius), round(y - radius), round(x + radius), round(y + radius))
            picture.paste(ink, box)
    return picture


def ask(client, content, media_type="image/png", query="?seen=true"):
    return client.post(f"/predict{query}", data=content, content_type=media_type)


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ((0, 0, 0), (255, 255, 255)),
        ((255, 255, 255), (0, 0, 0)),
        ((200, 30, 30), (30, 90, 30)),  # about equally light: only the colour differs
        ((90, 90, 90), (140, 140, 140)),
    ],
)
def test_colours_and_polarity_do_not_matter(client, ink, paper):
    answer = ask(client, encoded(seven(ink, paper)))
    assert answer.status_code == 200
    assert answer.json["prediction"] == 7
    expected = ask(client, encoded(seven())).json["seen"]
    assert np.abs(np.subtract(answer.json["seen"], expected)).max() <= 8


@pytest.mark.parametrize("size", [16, 64, 1200, 3000])
def test_size_does_not_matter(client, size):
    assert ask(client, encoded(seven(size=size))).json["prediction"] == 7


def test_the_form_is_that_of_mnist(client):
    seen = np.array(ask(client, encoded(seven())).json["seen"], float)
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    centre = [(seen.sum(axis=1 - axis) @ np.arange(28)) / seen.sum() for axis in (0, 1)]
    np.testing.assert_allclose(centre, 13.5, atol=0.6)
    assert seen.max() == 255


def test_mnist_images_pass_nearly_unchanged():
    for digit in labkit.load_mnist("sample").x_test[:20]:
        colours = np.repeat(digit[..., None], 3, axis=2).astype(np.float32)
        again = pictures.to_mnist(colours).astype(float)
        similarity = np.corrcoef(again.ravel(), pictures.to_mnist(255 - colours).ravel())[0, 1]
        assert similarity > 0.99  # polarity
        assert np.corrcoef(again.ravel(), digit.ravel())[0, 1] > 0.6


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_formats_and_forms(client, form):
    content = encoded(seven(), form)
    assert ask(client, content, f"image/{form.lower()}").json["prediction"] == 7
    upload = {"image": (io.BytesIO(content), "digit")}
    answer = client.post("/predict", data=upload, content_type="multipart/form-data")
    assert answer.json["prediction"] == 7
    assert "seen" not in answer.json


def modes() -> dict[str, Image.Image]:
    grey = seven().convert("L")
    transparent = Image.merge("LA", (Image.new("L", grey.size, 0), grey.point(lambda v: 255 - v)))
    light = Image.merge("LA", (Image.new("L", grey.size, 255), grey.point(lambda v: 255 - v)))
    sixteen = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    return {
        "grey": grey,
        "black and white": grey.convert("1"),
        "palette": seven().convert("P"),
        "transparent": transparent,
        "white on transparent": light,
        "16 bits": sixteen,
    }


@pytest.mark.parametrize("mode", modes())
def test_modes(client, mode):
    assert ask(client, encoded(modes()[mode])).json["prediction"] == 7


@pytest.mark.parametrize(("orientation", "turned"), [(3, 180), (6, 90), (8, 270)])
def test_a_photo_is_turned_upright(client, orientation, turned):
    upright = ask(client, encoded(seven(), "JPEG"), "image/jpeg").json
    exif = Image.Exif()
    exif[0x0112] = orientation  # how the camera was held: show it turned back
    content = encoded(seven().rotate(turned, expand=True), "JPEG", exif=exif)
    answer = ask(client, content, "image/jpeg").json
    assert answer["prediction"] == upright["prediction"] == 7
    assert np.abs(np.subtract(answer["seen"], upright["seen"])).mean() < 5


def test_specks_and_a_frame_are_left_out(client):
    picture = seven()
    for x in (20, 250):
        picture.paste((0, 0, 0), (x, 270, x + 4, 274))
    picture.paste((60, 60, 60), (290, 0, 300, 300))
    expected = ask(client, encoded(seven())).json["seen"]
    assert np.abs(np.subtract(ask(client, encoded(picture)).json["seen"], expected)).max() <= 8


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def bad_pictures() -> dict[str, tuple[bytes, str]]:
    whole = encoded(seven())
    return {
        "empty": (b"", "not a readable"),
        "text": (b"hello", "not a readable"),
        "truncated": (whole[: len(whole) // 2], "not a readable"),
        "another format": (encoded(seven(), "GIF"), "not a readable"),
        "100 million pixels": (png_header(10_000, 10_000), "10000x10000"),
        "decompression bomb": (png_header(60_000, 60_000), "more than 16 million"),
        "broken data": (png_header(100, 100), "not a readable"),
        "one colour": (encoded(Image.new("RGB", (50, 50), "blue")), "nothing to see"),
        "almost one colour": (encoded(seven((250, 250, 250))), "nothing to see"),
        "tiny": (encoded(Image.new("RGB", (3, 3))), "3x3"),
        "one row": (encoded(Image.new("RGB", (5000, 1))), "too few"),
    }


@pytest.mark.parametrize("name", bad_pictures())
def test_bad_pictures_are_one_clear_400(client, name):
    content, words = bad_pictures()[name]
    answer = ask(client, content)
    assert answer.status_code == 400
    assert list(answer.json) == ["error"]
    assert words in answer.json["error"]


def test_form_without_a_picture(client):
    answer = client.post("/predict", data={"other": "1"}, content_type="multipart/form-data")
    assert (answer.status_code, answer.json) == (400, {"error": "No image provided"})


def test_pieces_against_flood_fill():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((15, 20)) < 0.4
        labels = pictures._pieces(mask)
        from scipy.ndimage import label

        expected, _ = label(mask, np.ones((3, 3)))
        pairs = {(int(a), int(b)) for a, b in zip(labels.ravel(), expected.ravel(), strict=True)}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        assert not labels[~mask].any()


def test_otsu_against_scanning():
    rng = np.random.default_rng(1)
    ink = np.clip(np.r_[rng.normal(0.2, 0.05, 500), rng.normal(0.7, 0.1, 200)], 0, 1)

    def within(threshold: float) -> float:
        low, high = ink[ink <= threshold], ink[ink > threshold]
        return low.var() * len(low) + high.var() * len(high)

    best = min(np.arange(0.2, 0.8, 0.01), key=within)
    assert abs(pictures._otsu(ink) - best) < 0.05


def test_nothing_to_see_is_an_input_error():
    with pytest.raises(InputError, match="nothing"):
        pictures.to_mnist(np.zeros((20, 20, 3), np.float32))


def test_the_evaluation_counts_right_answers_in_every_way(home, monkeypatch):
    shown = []
    monkeypatch.setattr(evaluate_pictures.figures, "image_grid", watch_grid(shown))
    metrics = evaluate_pictures.main(["--smoke", "--data", "sample"])
    names = {f"accuracy_{way.replace(' ', '_')}" for way in WAYS}
    assert set(metrics) == {"floor_majority", "accuracy_784_numbers"} | names
    assert all(value in (0, 1 / 3, 2 / 3, 1) for value in metrics.values())  # of three images
    assert np.mean([metrics[name] for name in names]) > 0.6
    (tiles, titles), *_ = shown
    assert titles == list(WAYS)
    assert tiles.shape == (len(WAYS), 112, 224, 3)
    for tile in tiles:  # the file at the left, what the model saw of it at the right: both have ink
        assert np.ptp(tile[:, :112]) > 40
        assert tile[:, 112:].max() == 255


def watch_grid(shown: list):
    draw = evaluate_pictures.figures.image_grid

    def image_grid(images, titles, columns):
        shown.append((images, titles))
        return draw(images, titles, columns)

    return image_grid


def test_wrong_answers_are_counted_as_wrong():
    digits = labkit.load_mnist("sample")
    part = labkit.Part(digits.x_test[:4], digits.y_test[:4])
    predictions = iter([*part.y[:3], 10])
    answers = SimpleNamespace(
        post=lambda *path, **body: SimpleNamespace(json={"prediction": next(predictions)})
    )
    accuracy, _ = evaluate_pictures.ask_about(answers, "16 px", part, 0)
    assert accuracy == 0.75


@pytest.mark.parametrize("content", [None, b"not a model"])
def test_the_evaluation_of_a_missing_or_damaged_model_is_a_clear_error(tmp_path, capsys, content):
    path = tmp_path / "mnist.tflite"
    if content:
        path.write_bytes(content)
        path.with_suffix(".json").write_text('{"sha256": "0123456789"}')
    with pytest.raises(SystemExit) as stop:
        evaluate_pictures.main(["--data", "sample", "--smoke", "--model", str(path)])
    assert stop.value.code == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.realdata
def test_pictures_of_real_digits_are_read(real_data):
    metrics = evaluate_pictures.main(["--images", "5", "--data", "real", "--part", "training"])
    assert metrics.pop("floor_majority") <= 0.4
    assert min(metrics.values()) >= 0.8
