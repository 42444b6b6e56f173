"""The API in several processes: faults are caused, and the others keep being served."""

import gzip
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import requests
from PIL import Image
from urllib3 import encode_multipart_formdata

import labkit
from labkit.machine import free_port
from tests.conftest import ROOT
from tp1_mnist_api.app import create_app
from tp1_mnist_api.client import wait_until_ready
from tp1_mnist_api.digits import to_input
from tp1_mnist_api.serving import server as server_module
from tp1_mnist_api.serving import settings
from tp1_mnist_api.serving.model_file import LAB, Model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the server is for Linux and macOS")


def workers_of(pid: int) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    found = []
    for child in map(int, done.stdout.split()):
        command = subprocess.run(
            ["ps", "-o", "args=", "-p", str(child)], capture_output=True, text=True
        )
        if "resource_tracker" not in command.stdout:
            found.append(child)
    return found


class Server:
    """The real server in processes of its own."""

    def __init__(self, log, **environment):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {"PORT": str(self.port), "MODEL": str(LAB / "model" / "mnist.tflite")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tp1_mnist_api.serving.server"],
            cwd=ROOT, env={**os.environ, **settings, **environment}, stdout=log, stderr=log,
        )  # fmt: skip
        wait_until_ready(self.url, is_alive=lambda: self.process.poll() is None)


@pytest.fixture
def server(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        running = Server(log, BODY_SECONDS="3", DRAIN_SECONDS="1")
        running.log = tmp_path / "log"
        yield running
        if running.process.poll() is None:
            running.process.terminate()
        running.process.wait(timeout=40)


def images_and_answers():
    images = labkit.load_mnist("sample").x_test[:64]
    expected = Model(LAB / "model" / "mnist.tflite").predict(to_input(images))
    return images, expected


def ask_for(server, seconds: float, clients: int = 6) -> tuple[list[int], list[Exception]]:
    """Ask from several connections for a while: right answers per client, and failures.

    A new connection that is refused, or reset before its first answer, ends its client: the
    server had stopped listening.
    """
    images, expected = images_and_answers()
    right, failures = [0] * clients, []
    end = time.monotonic() + seconds

    def ask(number: int) -> None:
        connection, fresh, index = None, True, number
        while time.monotonic() < end:
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
                    fresh = True
                    connection.connect()
            except ConnectionError:  # http.client closed its socket
                break
            try:
                body = json.dumps({"image": images[index].ravel().tolist()})
                connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                found = np.float32(json.loads(response.read())["probabilities"][0])
                np.testing.assert_allclose(found, expected[index], atol=1e-6)
                right[number] += 1
                if response.getheader("connection") == "close":
                    connection.close()
                    connection = None
            except Exception as error:
                connection.close()
                if fresh and isinstance(error, ConnectionError):
                    break
                failures.append(error)
                connection = None
            else:
                fresh = connection is None
            index = (index + clients) % len(images)
        if connection is not None:
            connection.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return right, failures


def test_sixteen_clients_get_their_own_answers(server):
    right, failures = ask_for(server, 2, clients=16)
    assert not failures
    assert min(right) > 0


def test_a_killed_worker_costs_its_requests_in_flight_and_is_replaced(server):
    before = workers_of(server.process.pid)
    assert len(before) == 2
    threading.Timer(1, os.kill, (before[0], signal.SIGKILL)).start()
    right, failures = ask_for(server, 4)
    assert min(right) > 0
    assert len(failures) <= 6  # one for each connection
    assert not [error for error in failures if isinstance(error, AssertionError)]
    assert len(set(workers_of(server.process.pid)) - {before[0]}) == 2


def test_sigterm_under_load_fails_no_request(server):
    threading.Timer(1, server.process.send_signal, (signal.SIGTERM,)).start()
    right, failures = ask_for(server, 6)
    assert not failures
    assert min(right) > 0
    assert server.process.wait(timeout=20) == 0


def test_not_ready_while_draining(server):
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    answer = requests.get(f"{server.url}/ready", timeout=2)
    assert answer.status_code == 503
    assert answer.headers["connection"] == "close"


def exchanges() -> list[tuple[str, str, bytes, dict[str, str]]]:
    """Requests of all kinds: method, path, body, headers."""
    image = images_and_answers()[0][0].astype(int)
    good = json.dumps({"image": image.ravel().tolist()}).encode()
    dark = json.dumps({"image": (255 - image).tolist()}).encode()
    file = io.BytesIO()
    Image.fromarray((255 - np.hstack([image, image])).astype(np.uint8)).save(file, "PNG")
    picture = file.getvalue()
    form, form_type = encode_multipart_formdata({"image": ("digit.png", picture)})
    wrong, wrong_type = encode_multipart_formdata({"file": ("digit.png", picture)})
    as_json, packed = {"Content-Type": "application/json"}, {"Content-Encoding": "gzip"}
    return [
        ("POST", "/predict", good, as_json),
        ("POST", "/predict", dark, as_json),
        ("POST", "/predict", b'{"image": [0]}', as_json),
        ("POST", "/predict", b'{"pixels": [0]}', as_json),
        ("POST", "/predict", json.dumps({"image": [0] * 784}).encode(), as_json),
        ("POST", "/predict", gzip.compress(good), as_json | packed),
        ("POST", "/predict", good, as_json | packed),
        ("POST", "/predict", gzip.compress(b" " * 2**21), as_json | packed),
        ("POST", "/predict", good, {"Content-Type": "application/x-www-form-urlencoded"}),
        ("POST", "/predict", good, {}),
        ("POST", "/predict", b" " * (2**20 + 1), as_json),
        ("POST", "/predict?seen=true", picture, {"Content-Type": "image/png"}),
        ("POST", "/predict", picture, {"Content-Type": "image/jpg"}),
        ("POST", "/predict", gzip.compress(picture), {"Content-Type": "image/png"} | packed),
        ("POST", "/predict", form, {"Content-Type": form_type}),
        ("POST", "/predict", gzip.compress(form), {"Content-Type": form_type} | packed),
        ("POST", "/predict", wrong, {"Content-Type": wrong_type}),
        ("POST", "/predict/batch", b'{"images": []}', as_json),
        ("GET", "/predict", b"", {}),
        ("GET", "/nothing", b"", {}),
        ("GET", "/model", b"", {}),
    ]


def test_granian_and_flask_give_the_same_answers(server):
    flask = create_app(Model(LAB / "model" / "mnist.tflite")).test_client()
    statuses = []
    for method, path, body, headers in exchanges():
        expected = flask.open(path, method=method, data=body, headers=headers)
        found = requests.request(method, server.url + path, data=body, headers=headers, timeout=5)
        assert (found.status_code, found.content) == (expected.status_code, expected.data), path
        assert found.headers["Content-Type"] == expected.content_type
        statuses.append(found.status_code)
    assert set(statuses) == {200, 400, 404, 405, 413, 415}


def raw(server, content: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(content)
    return connection


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_slow_bodies_block_nobody_and_end_with_408(server):
    images, expected = images_and_answers()
    slow = [raw(server, HEAD + b'Content-Length: 5000\r\n\r\n{"ima') for _ in range(30)]
    began = time.monotonic()
    answer = requests.post(
        f"{server.url}/predict", json={"image": images[0].tolist()}, timeout=5
    ).json()
    assert time.monotonic() - began < 2.5  # not after the slow ones' time-out
    assert answer["prediction"] == expected[0].argmax()
    for connection in slow:
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")
        connection.close()


def test_bodies_without_a_length_are_limited_too(server):
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    connection = raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    with suppress(OSError):  # it is free to close
        for _ in range(12):
            connection.sendall(chunk)
    assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    connection.close()
    small = b'{"image": 1}'
    connection = raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    connection.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(small), small))
    assert connection.recv(4096).startswith(b"HTTP/1.1 400")
    connection.close()


ECHO = """
from flask import request
from tp1_mnist_api.app import create_app
from tp1_mnist_api.serving.rsgi import RsgiApp

def worker():
    app = create_app(None)
    app.get("/echo")(lambda: {"list": request.headers["X-List"], "cookies": dict(request.cookies)})
    return RsgiApp(app, 5)
"""


def test_a_header_that_comes_several_times_is_joined(tmp_path):
    (tmp_path / "echo.py").write_text(ECHO)
    options = ["--interface", "rsgi", "--factory", "--port", str(port := free_port())]
    process = subprocess.Popen(
        [sys.executable, "-m", "granian", *options, "echo:worker"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for _ in range(600):
            with suppress(ConnectionRefusedError):
                connection.connect()
                break
            assert process.poll() is None
            time.sleep(0.1)
        connection.putrequest("GET", "/echo")
        for name, value in (("X-List", "1"), ("Cookie", "a=1"), ("X-List", "2"), ("Cookie", "b=2")):
            connection.putheader(name, value)
        connection.endheaders()
        answer = json.loads(connection.getresponse().read())
        connection.close()
    finally:
        process.terminate()
        process.wait(timeout=60)
    assert answer == {"list": "1,2", "cookies": {"a": "1", "b": "2"}}


def test_metrics_add_up_over_workers_and_logs_are_json(server):
    image = images_and_answers()[0][0].tolist()
    for _ in range(20):  # new connections reach both workers
        requests.post(f"{server.url}/predict", json={"image": image}, timeout=5)
    requests.post(f"{server.url}/predict", json={"image": []}, timeout=5)
    headers = {"X-Request-ID": "find-me"}
    assert requests.get(f"{server.url}/health", headers=headers, timeout=5).headers[
        "X-Request-ID"
    ] == "find-me"  # fmt: skip
    text = requests.get(f"{server.url}/metrics", timeout=5).text
    assert 'mnist_requests_total{method="POST",route="/predict",status="200"} 20.0' in text
    assert 'mnist_refused_inputs_total{reason="shape"} 1.0' in text
    assert "mnist_confidence_count 20.0" in text
    lines = [line for line in server.log.read_text().splitlines() if line.startswith("{")]
    logged = [json.loads(line) for line in lines]
    assert "find-me" in {line["request_id"] for line in logged}
    assert {"status", "route", "milliseconds"} <= logged[0].keys()


def start_in_vain(**environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "tp1_mnist_api.serving.server"],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        (name, value, f"{lowest} to {highest}")
        for name, (_, lowest, highest) in settings.INTEGERS.items()
        for value in ("many", str(lowest - 1), str(highest + 1))
    ]
    + [("HOST", "nowhere", "IP address"), ("MODEL", "/nowhere.tflite", "can't read")],
)
def test_wrong_settings_are_a_clear_line_before_any_worker_starts(
    name, value, allowed, monkeypatch, capsys
):
    monkeypatch.setattr(server_module, "DrainingServer", None)
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stop:
        server_module.main()
    assert stop.value.code == 2
    out, text = capsys.readouterr()
    first, *more = text.splitlines()
    assert value in first
    assert allowed in first
    assert not more or name == "MODEL"  # which says how to name another
    assert name in text
    assert out == ""


def test_taken_port_and_foreign_address_are_a_clear_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = start_in_vain(PORT=port)
    assert done.returncode == 1
    assert port in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr
    done = start_in_vain(HOST="192.0.2.1", PORT=port)  # an address of nobody, RFC 5737
    assert done.returncode == 1
    assert "192.0.2.1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_hostile_requests_are_refused_while_others_are_served(python):
    done = python("tools/bench/api_fuzz_memory.py", "--requests", "600", "--growth", "0.25")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "600 hostile requests, 0 faults" in done.stdout
