"""The load tool: what it counts, what it refuses, and that no server outlives it."""

import json
import shutil
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest

import labkit
from tools.bench import api_load
from tools.bench.api_load import Absent, Server
from tp1_mnist_api import experiments

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tool is for Linux and macOS")

BODY = b'{"image": [0]}'


class Counting(ThreadingHTTPServer):
    """Counts right requests and its own answers 500: one in `fail_every`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, fail_every: int = 0, answer: bytes = b"{}"):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fail_every, self.answer = fail_every, answer
        self.right = self.wrong = 0
        self.bodies: set[bytes] = set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/predict"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        with server.lock:
            server.bodies.add(body)
            number = server.right + server.wrong + 1
            is_wrong = bool(server.fail_every and number % server.fail_every == 0)
            server.wrong += is_wrong
            server.right += not is_wrong
        status = 500 if is_wrong or self.path != "/predict" else 200
        answer = server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    running = []

    def start(**options) -> Counting:
        server = Counting(**options)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
@pytest.mark.parametrize("fail_every", [0, 4])
def test_wrk_for_real(serve, fail_every):
    server = serve(fail_every=fail_every)
    load = api_load.load(server.url, BODY, 4, 1)
    in_flight = 4
    assert abs(load["errors"] - server.wrong) <= in_flight
    assert (load["errors"] > 0) == (fail_every > 0)
    assert 0 < load["requests_per_second"] <= server.right
    assert 0 < load["p50_ms"] <= load["p95_ms"] <= load["p99_ms"]
    assert server.bodies == {BODY}


def answering(prediction: int, probabilities: list[float]) -> bytes:
    return json.dumps({"prediction": prediction, "probabilities": [probabilities]}).encode()


def test_another_answer_is_refused(serve):
    right = np.array([[0.9, *[0.1 / 9] * 9]])
    known = api_load.SERVERS["ours"]
    images = [[0] * 784]
    same = serve(answer=answering(0, right[0].tolist()))
    assert api_load.difference(known, same.url, images, right) == 0
    for prediction, offset in ((1, 0), (0, 2e-4)):
        other = serve(answer=answering(prediction, (right[0] + offset).tolist()))
        with pytest.raises(Absent, match="differs"):
            api_load.difference(known, other.url, images, right)


def test_every_request_of_mlflow_is_wrapped():
    server = api_load.SERVERS["mlflow"]
    assert json.loads(server.request({"image": [1]})) == {"inputs": [{"image": [1]}]}
    assert server.answer(b'{"predictions": [{"prediction": 3}]}') == {"prediction": 3}


def test_ratios_are_taken_per_round():
    rounds = {
        "ours": [{"requests_per_second": 200}, {"requests_per_second": 300}],
        "other": [{"requests_per_second": 100}, {"requests_per_second": 100}],
    }
    assert api_load.ratios(rounds)["ratio_ours_over_other"]["values"] == [2, 3]
    assert api_load.ratios({"other": rounds["other"]}) == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seconds", "0"],
        ["--rounds", "0"],
        ["--connections", "0"],
        ["--servers", "nginx"],
        ["--seconds", "2.5"],
    ],
)
def test_bad_arguments_are_one_message(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        labkit.parse(api_load.Config, arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_without_wrk_is_one_message(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit) as caught:
        api_load.main(["--servers", "ours"])
    assert caught.value.code == 2
    assert "wrk" in capsys.readouterr().err


CHILD = "import subprocess, sys; subprocess.Popen(['sleep', '60'], start_new_session=True)\n"


def test_stopped_with_all_descendants():
    code = CHILD + "import time; time.sleep(60)"
    process = psutil.Popen([sys.executable, "-c", code], start_new_session=True)
    deadline = time.monotonic() + 20
    while not (children := process.children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(children) == 1
    assert api_load.memory_mib(process) > 1
    api_load.stop(process)
    assert not process.is_running()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


def test_one_that_ended_is_stopped_too():
    process = psutil.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.wait()
    api_load.stop(process)
    assert not process.is_running()


def test_a_failing_server_leaves_the_others(monkeypatch):
    def measure(name: str, *arguments) -> dict:
        if name == "fastapi":
            raise Absent("no network")
        order.append(name)
        return {"requests_per_second": 1.0}

    order: list[str] = []
    monkeypatch.setattr(api_load, "measure", measure)
    monkeypatch.setattr(api_load, "make_models", lambda folder: None)
    config = api_load.Config(rounds=2, servers=("ours", "fastapi", "gunicorn"))
    rounds, absent = api_load.measure_all(config)
    assert absent == {"fastapi": "no network"}
    assert {name: len(turns) for name, turns in rounds.items()} == {"ours": 2, "gunicorn": 2}
    assert order == ["ours", "gunicorn", "gunicorn", "ours"]  # they take turns at the beginning


def test_a_server_that_ends_is_absent_with_its_last_words(tmp_path):
    (tmp_path / "server.py").write_text("raise SystemExit('no model here')")
    server = Server("broken", "{python} {models}/server.py", "none.txt")
    with (
        pytest.raises(Absent, match="no model here"),
        api_load.started(server, Path(sys.executable), tmp_path, BODY),
    ):
        raise AssertionError("it started")


def test_an_environment_without_network_is_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(api_load, "run", refuse)
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    with pytest.raises(Absent, match="no network"):
        api_load.environment_of("gunicorn", "gunicorn.txt")


def refuse(*arguments, **options):
    raise Absent("no network")


def test_keras_answers_like_the_served_file(tmp_path):
    from tools.bench.api_peers import to_keras

    to_keras.main(str(api_load.MODEL), str(tmp_path / "mnist.keras"))
    import keras

    images, expected = api_load.examples()
    model = keras.saving.load_model(tmp_path / "mnist.keras")
    found = np.asarray(model(np.array(images, np.float32) / 255))
    assert np.abs(found - expected).max() < 1e-5


def test_the_table_starts_with_the_fastest(monkeypatch):
    def server(label: str, rate: float) -> dict:
        keys = ("p50_ms", "p95_ms", "p99_ms", "errors", "memory_mib", "cold_start_seconds")
        return {
            "label": label,
            "requests_per_second": labkit.results.summary([rate, rate]),
            "bad_inputs": {"no JSON": 400, "no image": 500},
            "environment_mb": 12.3,
            **{key: labkit.results.summary([1, 2]) for key in keys},
        }

    content = {
        "servers": {"slow": server("slow one", 10), "ours": server("ours", 90)},
        "absent": {"gone": "no network"},
        "ratio_ours_over_slow": labkit.results.summary([9, 9]),
    }
    monkeypatch.setattr(experiments, "read", lambda name: content)
    rows = experiments.api_load().splitlines()
    assert rows[2].startswith("| ours | 90 ± 0 (n = 2) | 1.5 |")
    assert rows[3].endswith("| 3 | 1 of 2 | 2 | 1.5 | 12 | 9.00 ± 0.00 (n = 2) |")
    assert "gone, absent: no network" in rows[4]
    assert len({row.count("|") for row in rows}) == 1
