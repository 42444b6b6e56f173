"""The API from the outside: its contract, its errors, and a model file that is not what it says."""

import gzip
import json
import os
import socket
import subprocess
import sys
import threading
import zlib
from contextlib import suppress

import numpy as np
import pytest
import requests

import labkit
from labkit.machine import free_port
from tests.conftest import ROOT
from tp1_mnist_api import app
from tp1_mnist_api.app import Model, ModelError, create_app
from tp1_mnist_api.client import wait_until_ready
from tp1_mnist_api.digits import to_input
from tp1_mnist_api.export import export_for_serving, sha256_of
from tp1_mnist_api.models import build_compact
from tp1_mnist_api.serving import inputs
from tp1_mnist_api.serving.model_file import LAB

ZEROS = [0] * 784
STROKE = [255 if index % 28 in (13, 14) and 140 < index < 640 else 0 for index in range(784)]
"""The least that is taken for a digit: an upright stroke."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An untrained dense network, exported with its card."""
    labkit.prepare(0)
    path = tmp_path_factory.mktemp("model") / "mnist.tflite"
    export_for_serving(build_compact(0.1), path, np.zeros((2, 784), np.float32))
    card = {"sha256": sha256_of(path), "model": "compact"}
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


@pytest.fixture(scope="module")
def client(exported):
    return create_app(Model(exported)).test_client()


@pytest.fixture
def digit() -> np.ndarray:
    return labkit.load_mnist("sample").x_test[0]


def shapes(image: np.ndarray) -> dict[str, list]:
    return {
        "flat": image.ravel().tolist(),
        "rows": image.tolist(),
        "with channel": image[..., None].tolist(),
        "batch of one, flat": image.reshape(1, 784).tolist(),
        "batch of one, rows": image[None].tolist(),
        "batch of one, with channel": image[None, ..., None].tolist(),
    }


@pytest.mark.parametrize("shape", shapes(np.zeros((28, 28))))
def test_allowed_shapes_give_the_same_prediction(client, digit, exported, shape):
    answer = client.post("/predict", json={"image": shapes(digit)[shape], "extra": 1})
    assert answer.status_code == 200
    expected = Model(exported).predict(to_input(digit[None]))
    assert answer.json["prediction"] == int(expected.argmax())
    np.testing.assert_array_equal(np.float32(answer.json["probabilities"]), expected)


def test_a_batch_is_answered_as_its_images_one_by_one():
    shipped = create_app(Model(LAB / "model" / "mnist.tflite")).test_client()
    images = labkit.load_mnist("sample").x_test[:7].tolist()
    single = [shipped.post("/predict", json={"image": image}).json for image in images]
    batch = shipped.post("/predict/batch", json={"images": images}).json
    assert len(set(batch["predictions"])) > 3
    assert batch["predictions"] == [answer["prediction"] for answer in single]
    assert batch["probabilities"] == [answer["probabilities"][0] for answer in single]


def test_success_is_byte_compatible(client, digit):
    answer = client.post("/predict", json={"image": digit.ravel().tolist()})
    assert answer.content_type == "application/json"
    assert answer.data.startswith(b'{"prediction":')
    assert b',"probabilities":[[' in answer.data
    assert answer.data.endswith(b"]]}\n")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/vnd.x+json"])
def test_json_content_types(client, kind):
    body = json.dumps({"image": STROKE})
    assert client.post("/predict", data=body, content_type=kind).status_code == 200


def as_image(value: list) -> str:
    return json.dumps({"image": value})


def body(value: str) -> str:
    """A JSON body in which one of the 784 values is `value`."""
    return '{"image": [' + value + ", 0" * 783 + "]}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (as_image([[0] * 196] * 4), "28 rows"),
        (as_image([[0]] * 784), "784 rows of 1; in numpy, image.ravel()"),
        (as_image(ZEROS[:-1]), "783"),
        ('{"image": []}', "got 0"),
        (as_image([ZEROS, ZEROS]), "28 rows"),
        ('{"image": null}', "NoneType"),
        ('{"image": {"a": 1}}', "dict"),
        (as_image([[0] * 28] * 27 + [[0] * 27]), "28 rows"),
        (body('"a"'), "not a number"),
        (body('"3"'), "not a number"),
        (body("true"), "not a number"),
        (body("null"), "not a number"),
        (body("NaN"), "outside 0..255"),
        (body("Infinity"), "outside 0..255"),
        (body("1e400"), "outside 0..255"),
        (body("9999"), "outside 0..255"),
        (body("-5"), "outside 0..255"),
        (body("1" * 400), "outside 0..255"),
        (body("1" * 5000), "outside 0..255"),
        (body("0.5"), "divided by 255"),
        (as_image(ZEROS), "nothing to see"),
        (as_image([255] * 784), "nothing to see"),
        (as_image([[7] * 28] * 28), "nothing to see"),
        (as_image([0] * 780 + [255] * 4), "nothing to see"),  # four pixels are specks
        (as_image([100, 110] * 392), "nothing to see"),
        ("{}", "No image provided"),
        ('{"pixels": [1], "id": 7}', '"image", got "pixels", "id"'),
        ("[1, 2]", "No image provided"),
        ('"text"', "object"),
        ("null", "object"),
        ("7", "object"),
        ("{", "line 1, column 2"),
        ("", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        ('{"image": ' + "[" * 100_000, "not valid JSON"),
        ('{"image": ' + "[" * 100_000 + "]" * 100_000 + "}", ""),
    ],
)
def test_bad_input_is_one_clear_400(client, content, words):
    answer = client.post("/predict", data=content, content_type="application/json")
    assert answer.status_code == 400
    assert list(answer.json) == ["error"]
    assert words in answer.json["error"]


def test_the_last_duplicate_counts(client):
    twice = '{"image": 1, "image": ' + json.dumps(STROKE) + "}"
    answer = client.post("/predict", data=twice, content_type="application/json")
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "image",
    [
        np.subtract(255, STROKE),
        np.subtract(200, np.divide(STROKE, 2)),  # grey on light grey
        np.subtract(255.0, STROKE).reshape(28, 28),
    ],
)
def test_dark_on_light_numbers_are_answered_with_a_warning(client, image):
    answer = client.post("/predict", json={"image": image.tolist()})
    assert answer.status_code == 200
    (warning,) = answer.json["warnings"]
    assert warning.startswith("image: dark on light")
    assert "255 minus" in warning
    batch = client.post("/predict/batch", json={"images": [STROKE, image.tolist()]}).json
    (warning,) = batch["warnings"]
    assert warning.startswith("images[1]: dark on light")
    assert batch["probabilities"][1] == answer.json["probabilities"][0]


def test_a_batch_is_refused_for_one_empty_image_and_names_it(client):
    answer = client.post("/predict/batch", json={"images": [STROKE, ZEROS]})
    assert answer.status_code == 400
    assert answer.json["error"].startswith("images[1]: nothing to see")


@pytest.mark.parametrize("ground", [0, 20])
@pytest.mark.parametrize("kind", [int, float])
def test_light_on_dark_has_no_warning_and_no_new_key(client, ground, kind):
    image = [kind(max(ground, value)) for value in STROKE]
    answer = client.post("/predict", json={"image": image})
    assert list(answer.json) == ["prediction", "probabilities"]
    batch = client.post("/predict/batch", json={"images": [image]})
    assert list(batch.json) == ["predictions", "probabilities"]


def test_the_short_way_and_the_long_way_agree():
    """What the fast check lets through has neither a warning nor a refusal in the slow one."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        share, low = rng.uniform(0.3, 1), rng.integers(0, 40)
        image = np.where(rng.random(784) < share, 0, rng.integers(low, 256, 784))
        body = json.dumps({"image": image.tolist()}).encode()
        longer = json.dumps({"image": image.tolist(), "extra": 1}).encode()
        found = []
        for content in (body, longer):
            try:
                pixels, warnings = inputs.read_image(content)
                found.append((pixels.tolist(), list(warnings)))
            except inputs.InputError as error:
                found.append(str(error))
        assert found[0] == found[1]


PICTURE = "-H 'Content-Type: image/png'"


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "words"),
    [
        ("POST", "/predict", {"data": b"x" * 2_000_000, "content_type": "application/json"}, 413,
         "longer than 1 MiB"),
        ("POST", "/predict", {"data": b"x" * 11_000_000, "content_type": "image/png"}, 413,
         "longer than 10 MiB"),
        ("POST", "/predict", {"data": "image=1", "content_type": "text/plain"}, 415,
         "text/plain; send JSON with -H 'Content-Type: application/json'"),
        ("POST", "/predict", {"data": "x", "content_type": "application/x-www-form-urlencoded"},
         415, "application/x-www-form-urlencoded; send JSON with -H"),
        ("POST", "/predict", {"data": "x", "content_type": "image/gif"}, 415, PICTURE),
        ("POST", "/predict", {"data": "x"}, 415, "no Content-Type"),
        ("POST", "/predict/batch", {"data": "x", "content_type": "text/csv"}, 415,
         "text/csv; send JSON with -H"),
        ("GET", "/predict", {}, 405, "POST"),
        ("GET", "/nothing", {}, 404, "/docs"),
    ],
)  # fmt: skip
def test_other_errors_are_json(client, method, path, options, status, words):
    answer = client.open(path, method=method, **options)
    assert answer.status_code == status
    assert answer.content_type == "application/json"
    assert list(answer.json) == ["error"]
    assert words in answer.json["error"]
    if status == 405:
        assert set(answer.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)],
)
def test_compressed_bodies_are_read(client, encoding, pack):
    body = json.dumps({"image": STROKE}).encode()
    options = {"content_type": "application/json", "headers": {"Content-Encoding": encoding}}
    plain = client.post("/predict", json={"image": STROKE})
    assert client.post("/predict", data=pack(body), **options).data == plain.data
    batch = json.dumps({"images": [STROKE]}).encode()
    assert client.post("/predict/batch", data=pack(batch), **options).status_code == 200


@pytest.mark.parametrize(
    ("encoding", "content", "status", "words"),
    [
        ("gzip", gzip.compress(b" " * 2**21), 413, "1 MiB"),  # 2 KB that become 2 MiB
        ("gzip", gzip.compress(b"{}")[:-9], 400, "ends too early"),
        ("gzip", b"{}", 400, "not gzip"),
        ("br", b"{}", 415, "br can't be read; use gzip"),
    ],
    ids=["too long", "cut", "plain", "another"],  # the bytes hold the time: names must not
)
def test_compressed_bodies_have_limits_and_clear_errors(client, encoding, content, status, words):
    answer = client.post(
        "/predict",
        data=content,
        content_type="application/json",
        headers={"Content-Encoding": encoding},
    )
    assert answer.status_code == status
    assert words in answer.json["error"]


def test_without_a_model_503():
    client = create_app(None).test_client()
    answer = client.post("/predict", json={"image": ZEROS})
    assert answer.status_code == 503
    assert answer.json == {"error": "The model could not be loaded"}
    assert client.get("/health").status_code == 503
    assert client.get("/model").status_code == 503


def test_unforeseen_error_is_json_without_details(exported, monkeypatch):
    model = Model(exported)
    monkeypatch.setattr(model, "predict", lambda pixels: 1 / 0)
    answer = create_app(model).test_client().post("/predict", json={"image": STROKE})
    assert answer.status_code == 500
    assert answer.json == {"error": "Internal error"}


def test_health_and_card(client):
    assert client.get("/health").json == {"model_loaded": True, "status": "ok"}
    assert client.get("/model").json["model"] == "compact"


def copy(exported, folder):
    path = folder / "mnist.tflite"
    path.write_bytes(exported.read_bytes())
    path.with_suffix(".json").write_text(exported.with_suffix(".json").read_text())
    return path


def test_damaged_model_is_refused(exported, tmp_path, python):
    path = copy(exported, tmp_path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ModelError, match="SHA-256"):
        Model(path)
    done = python("tp1_mnist_api/app.py", "--model", str(path))
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_model_and_card_are_refused(exported, tmp_path):
    with pytest.raises(ModelError, match=r"nothing\.tflite"):
        Model(tmp_path / "nothing.tflite")
    path = copy(exported, tmp_path)
    path.with_suffix(".json").unlink()
    with pytest.raises(ModelError, match="card"):
        Model(path)


def test_many_threads_get_their_own_answers(client, exported):
    images = labkit.load_mnist("sample").x_test[:64]
    expected = Model(exported).predict(to_input(images)).argmax(axis=1).tolist()
    answers = {}

    def ask(number: int) -> None:
        fresh = client.application.test_client()
        for index in range(number, 64, 16):
            answer = fresh.post("/predict", json={"image": images[index].tolist()})
            answers[index] = answer.json["prediction"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[index] for index in range(64)] == expected


@pytest.mark.parametrize("value", ["abc", "0", "65536", "-1"])
@pytest.mark.parametrize("way", ["PORT", "--port"])
def test_wrong_port_is_a_clear_error(monkeypatch, capsys, way, value):
    monkeypatch.setattr(sys, "argv", ["app.py"])
    if way == "PORT":
        monkeypatch.setenv("PORT", value)
    else:
        sys.argv.append(f"--port={value}")
    with pytest.raises(SystemExit) as stop:
        app.main()
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert all(word in last for word in (way, "1 to 65535", value))


def command(exported, port: int) -> list[str]:
    script = str(ROOT / "tp1_mnist_api" / "app.py")
    return [sys.executable, script, "--model", str(exported), "--port", str(port)]


@pytest.fixture
def development_server(exported):
    """Address of `python tp1_mnist_api/app.py` on a free port."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    server = subprocess.Popen(command(exported, port), stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(url, is_alive=lambda: server.poll() is None)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=10)


def test_taken_port_is_a_clear_error(exported):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(command(exported, port), capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_the_development_server_limits_bodies_of_unknown_length(development_server):
    usable = json.dumps({"image": STROKE}).encode()
    for kind, body, status in (
        ("application/json", [usable], 200),
        ("application/json", [usable, b" " * 2**20], 413),  # its first MiB could be answered
        ("application/json", [b" " * 2**20] * 3, 413),
        ("image/png", [b" " * 2**20] * 11, 413),
        ("image/png", [b" " * 2**20] * 9, 400),
    ):
        answer = requests.post(  # an iterator is sent in chunks
            f"{development_server}/predict",
            data=iter(body),
            headers={"Content-Type": kind},
            timeout=10,
        )
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "application/json"
        assert status == 200 or list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/7.x\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
    ],
)
def test_what_never_reaches_flask_is_refused_as_json(development_server, request_line, status):
    port = int(development_server.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request_line)
        answer = b""
        with suppress(ConnectionError):  # what it didn't read resets the connection
            while part := connection.recv(4096):
                answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Type: application/json" in head
    assert list(json.loads(body)) == ["error"]
