"""Pictures of digits: decoded safely, brought into MNIST's form, read right."""

import gzip
import io
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from urllib3 import encode_multipart_formdata

import labkit
from tests.conftest import ROOT
from tp1_mnist_api import evaluate_pictures, surroundings
from tp1_mnist_api.app import create_app
from tp1_mnist_api.drawings import WAYS, draw_file
from tp1_mnist_api.serving import decoding, ground, pictures
from tp1_mnist_api.serving.inputs import InputError
from tp1_mnist_api.serving.model_file import LAB, Model
from tp1_mnist_api.serving.pieces import label, pieces_of
from tp1_mnist_api.serving.views import WARPS, views_of


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
        again = pictures.to_mnist(colours)[0].astype(float)
        turned = pictures.to_mnist(255 - colours)[0]
        similarity = np.corrcoef(again.ravel(), turned.ravel())[0, 1]
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
        "a PNG of 17 million": (png_header(4_250, 4_000), "or send a plain JPEG"),
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


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({}, ""),
        ({"other": "1"}, ": the form's field must be 'image', got 'other'"),
        (
            {"file": (io.BytesIO(b"x"), "digit.png")},
            ": the form's field must be 'image', got 'file'",
        ),
        ({"image": "digit.png"}, ": the field image is text, it must be a file: -F image=@file"),
    ],
)
def test_form_without_a_picture(client, form, words):
    answer = client.post("/predict", data=form, content_type="multipart/form-data")
    assert (answer.status_code, answer.json) == (400, {"error": "No image provided" + words})


@pytest.mark.parametrize("corners", [True, False])
def test_pieces_against_flood_fill(corners):
    from scipy import ndimage

    rng = np.random.default_rng(0)
    for share in np.linspace(0.1, 0.9, 40):
        mask = rng.random((rng.integers(1, 20), rng.integers(1, 25))) < share
        labels, count = label(mask, corners)
        expected, number = ndimage.label(mask, np.ones((3, 3)) if corners else None)
        assert count == number
        pairs = {(int(a), int(b)) for a, b in zip(labels.ravel(), expected.ravel(), strict=True)}
        assert len(pairs) == count + (not mask.all())
        assert not labels[~mask].any()
        pieces = pieces_of(mask, corners)
        for index, place in enumerate(ndimage.find_objects(labels)):
            assert (pieces.tops[index], pieces.lefts[index]) == (place[0].start, place[1].start)
            assert pieces.heights[index] == place[0].stop - place[0].start
            assert pieces.widths[index] == place[1].stop - place[1].start
            assert pieces.sizes[index] == (labels == index + 1).sum()


def test_a_closing_against_scipy():
    from scipy import ndimage

    values = np.random.default_rng(0).random((23, 31))
    for side in (3, 7, 9, 15):
        expected = ndimage.minimum_filter(
            ndimage.maximum_filter(values, side, mode="constant", cval=-np.inf),
            side, mode="constant", cval=np.inf,
        )  # fmt: skip
        np.testing.assert_array_equal(ground.closed(values, side), expected)


def test_otsu_against_scanning():
    rng = np.random.default_rng(1)
    ink = np.clip(np.r_[rng.normal(0.2, 0.05, 500), rng.normal(0.7, 0.1, 200)], 0, 1)

    def within(threshold: float) -> float:
        low, high = ink[ink <= threshold], ink[ink > threshold]
        return low.var() * len(low) + high.var() * len(high)

    best = min(np.arange(0.2, 0.8, 0.01), key=within)
    assert abs(ground.otsu(ink) - best) < 0.05


def test_nothing_to_see_is_an_input_error():
    with pytest.raises(InputError, match="nothing"):
        pictures.to_mnist(np.zeros((20, 20, 3), np.float32))


# --- What surrounds a digit ----------------------------------------------------------------------

AROUND = [way for way, (draw, *_) in WAYS.items() if "surroundings" in str(draw)]


@pytest.mark.parametrize("way", AROUND)
def test_what_surrounds_a_digit_is_not_taken_for_it(client, way):
    """The sample's digits are not MNIST's: compared with the answers to the plain digits."""
    digits = labkit.load_mnist("sample").x_test[:12]
    rng = np.random.default_rng(0)
    plain, found = [], []
    for digit in digits:
        plain.append(client.post("/predict", data=draw_file("500 px", digit, rng)[0],
                                 content_type="image/png").json["prediction"])  # fmt: skip
        content, media_type = draw_file(way, digit, rng)
        found.append(ask(client, content, media_type).json["prediction"])
    assert np.mean(np.equal(found, plain)) >= 10 / 12


def warnings_of(client, picture: Image.Image, form: str = "PNG") -> list[str]:
    answer = ask(client, encoded(picture, form), f"image/{form.lower()}", query="").json
    assert "warnings" not in answer or answer["warnings"]  # no empty list
    return [warning.split(":")[0] for warning in answer.get("warnings", [])]


def digit_seven() -> np.ndarray:
    small = seven().convert("L").resize((28, 28), Image.Resampling.BOX)
    return 255 - np.asarray(small)


@pytest.mark.parametrize(
    "way", ["500 px", "any two colours", "ruled paper", "light from one side", "noise of sd 25",
            "blurred", "printed box", "cell of a table", "sheet on a table"],
)  # fmt: skip
def test_one_clear_digit_has_no_warnings(client, way):
    content, media_type = draw_file(way, digit_seven(), np.random.default_rng(3))
    answer = ask(client, content, media_type, query="").json
    assert list(answer) == ["prediction", "probabilities"]
    assert answer["prediction"] == 7


def beside(*pictures: Image.Image) -> Image.Image:
    return Image.fromarray(np.hstack([np.asarray(picture) for picture in pictures]))


def below(*pictures: Image.Image) -> Image.Image:
    return Image.fromarray(np.vstack([np.asarray(picture) for picture in pictures]))


@pytest.mark.parametrize("arrange", [beside, below])
@pytest.mark.parametrize("count", [2, 3])
def test_several_digits_are_answered_with_a_warning(client, arrange, count):
    assert "several separate pieces" in warnings_of(client, arrange(*[seven()] * count))


def test_a_digit_on_its_side_is_answered_with_a_warning(client):
    assert warnings_of(client, seven().rotate(90)) == ["wider than tall"]


def test_uneven_ground_is_answered_with_a_warning(client):
    rng = np.random.default_rng(1)
    picture = surroundings.in_hard_shadow(digit_seven(), rng)
    assert "uneven ground" in warnings_of(client, picture, "JPEG")


def test_almost_no_ink_is_answered_with_a_warning(client):
    page = Image.new("RGB", (1500, 1500), "white")
    page.paste(seven(size=100), (700, 700))
    assert ask(client, encoded(page)).json["prediction"] == 7
    assert warnings_of(client, page) == ["almost no ink"]


def test_little_contrast_is_answered_with_a_warning(client):
    assert warnings_of(client, seven((120, 120, 120), (145, 145, 145))) == [
        "little contrast between ink and ground"
    ]


def test_a_frame_alone_is_not_cut_away(client):
    """Digits of straight strokes: nothing that is inside them is a digit."""
    for strokes in (
        [(80, 40, 220, 60), (80, 40, 100, 260), (200, 40, 220, 260), (80, 240, 220, 260)],  # 0
        [(80, 40, 220, 60), (200, 40, 220, 260), (80, 240, 220, 260), (80, 140, 220, 160)],  # 3
        [(80, 40, 220, 60), (80, 40, 100, 260), (200, 40, 220, 260), (80, 240, 220, 260),
         (80, 140, 220, 160)],  # 8
    ):  # fmt: skip
        picture = Image.new("RGB", (300, 300), "white")
        for box in strokes:
            picture.paste((0, 0, 0), box)
        seen = np.array(ask(client, encoded(picture)).json["seen"])
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        assert np.ptp(rows) + 1 == 20
        assert np.ptp(columns) + 1 >= 12


CASES = ROOT.parent / "shared" / "cases"


@pytest.mark.skipif(not CASES.exists(), reason="kept outside the project")
def test_pictures_that_strangers_sent(client):
    for path in sorted(CASES.glob("*.*g")):
        form = "png" if path.suffix == ".png" else "jpeg"
        answer = ask(client, path.read_bytes(), f"image/{form}").json
        if "shadow" in path.name:  # it lies on its side
            assert answer["warnings"], path.name
        else:
            assert answer["prediction"] == int(path.stem[-1]), path.name


def odd_picture(rng: np.random.Generator) -> Image.Image:
    """Noise, stripes, blocks, specks or a gradient: no digit, but nothing to fall over either."""
    height, width = (int(rng.choice([8, 9, 16, 28, 63, 200])) for _ in range(2))
    pixels = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    kind = rng.integers(6)
    if kind == 0:
        pixels = rng.integers(0, 256, pixels.shape).astype(np.uint8)
    elif kind == 1:
        pixels[rng.random((height, width)) < rng.choice([0.001, 0.01, 0.5])] = 255
    elif kind == 2:
        pixels[:: rng.integers(2, 9)] = 0
    elif kind == 3:
        pixels[:, :: rng.integers(2, 9)] = 255
    elif kind == 4:
        for _ in range(rng.integers(1, 8)):
            top, left = rng.integers(0, height), rng.integers(0, width)
            pixels[top : top + 30, left : left + rng.integers(1, 60)] = rng.integers(0, 256, 3)
    else:
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8))
        return coarse.resize((width, height), Image.Resampling.BICUBIC)
    return Image.fromarray(pixels)


def test_no_picture_is_an_internal_error(client):
    rng = np.random.default_rng(0)
    for _ in range(300):
        answer = ask(client, encoded(odd_picture(rng)))
        assert answer.status_code in (200, 400)
        if answer.status_code == 200:
            assert sum(answer.json["probabilities"][0]) == pytest.approx(1, abs=1e-5)


# --- Sizes and depths ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((6000, 4000), {}),
        ((4960, 7016), {}),
        ((10_000, 9_900), {}),
        ((5600, 5600), {"progressive": True}),
    ],
)
def test_large_jpegs_are_read(client, size, options):
    picture = Image.new("L", size, 255)
    part = seven().convert("L").resize((min(size) // 2,) * 2)
    picture.paste(part, (size[0] // 4, size[1] // 4))
    answer = ask(client, encoded(picture, "JPEG", quality=60, **options), "image/jpeg")
    assert answer.json["prediction"] == 7


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        ((10_010, 10_000), {}, "100 million"),
        ((5_700, 5_700), {"progressive": True}, "32 million, the limit for a progressive JPEG"),
    ],
)
def test_larger_jpegs_are_refused_with_a_remedy(client, size, options, words):
    content = encoded(Image.new("L", size, 255), "JPEG", quality=30, **options)
    answer = ask(client, content, "image/jpeg")
    assert answer.status_code == 400
    assert words in answer.json["error"]
    assert "1000 pixels are plenty" in answer.json["error"]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bit_files_hold_fewer_bits(client, bits):
    grey = np.asarray(seven().convert("L")).astype(np.uint16)
    picture = Image.fromarray(grey * (2**bits - 1) // 255)
    assert picture.mode == "I;16"
    assert ask(client, encoded(picture)).json["prediction"] == 7


@pytest.mark.parametrize("media_type", decoding.MEDIA_TYPES + decoding.OTHER_NAMES)
def test_media_types_and_their_other_names(client, media_type):
    assert ask(client, encoded(seven(), "JPEG"), media_type).json["prediction"] == 7


def test_a_compressed_form_or_picture_is_read(client):
    content = encoded(seven(), "PNG")
    form, media_type = encode_multipart_formdata({"image": ("digit.png", content)})
    for body, kind in ((content, "image/png"), (form, media_type)):
        answer = client.post("/predict", data=gzip.compress(body), content_type=kind,
                             headers={"Content-Encoding": "gzip"})  # fmt: skip
        assert answer.json["prediction"] == 7


def test_the_views_are_the_digit_and_its_warps():
    digit = digit_seven().reshape(1, 784).astype(np.float32) / 255
    views = views_of(digit)
    assert views.shape == (1 + len(WARPS), 784)
    np.testing.assert_array_equal(views[0], digit[0])
    assert views.dtype == np.float32
    for view, (height, width, lean) in zip(views[1:], WARPS, strict=True):
        image, whole = view.reshape(28, 28), digit.reshape(28, 28)
        tall = np.ptp(np.flatnonzero(image.max(axis=1) > 0.3)) + 1
        assert abs(tall - height * (np.ptp(np.flatnonzero(whole.max(axis=1) > 0.3)) + 1)) <= 2
        ratio = image.sum() / whole.sum()
        assert ratio == pytest.approx(height * width, rel=0.1)
        if lean:  # rows further down lie further to one side
            lines = [image[row] @ np.arange(28) / image[row].sum() for row in (9, 18)]
            plain = [whole[row] @ np.arange(28) / whole[row].sum() for row in (9, 18)]
            assert np.sign(np.diff(lines) - np.diff(plain) * width / height) == -np.sign(lean)


def test_the_evaluation_counts_right_answers_in_every_way(home, monkeypatch):
    shown = []
    monkeypatch.setattr(evaluate_pictures.figures, "image_grid", watch_grid(shown))
    metrics = evaluate_pictures.main(["--smoke", "--data", "sample"])
    ways = [way.replace(" ", "_") for way in WAYS]
    names = {f"accuracy_{way}" for way in ways}
    fixed = {"floor_majority", "accuracy_784_numbers", "images"}
    assert set(metrics) == fixed | names | {f"warned_{way}" for way in ways}
    assert metrics.pop("images") == 3
    assert all(value in (0, 1 / 3, 2 / 3, 1) for value in metrics.values())
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
    predictions, words = [*part.y[:3], 10], [{}, {"warnings": ["several"]}, {}, {}]
    replies = ({"prediction": digit} | more for digit, more in zip(predictions, words, strict=True))
    answers = SimpleNamespace(post=lambda *path, **body: SimpleNamespace(json=next(replies)))
    accuracy, warned, _ = evaluate_pictures.ask_about(answers, "16 px", part, 0)
    assert (accuracy, warned) == (0.75, 0.25)


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
    assert min(value for name, value in metrics.items() if name.startswith("accuracy_")) >= 0.6
