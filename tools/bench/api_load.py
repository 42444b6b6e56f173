"""How many requests a second the MNIST API answers, beside other ways to serve the same model.

    python tools/bench/api_load.py                                        # all servers, 3 rounds
    python tools/bench/api_load.py --servers ours fastapi --seconds 2 --rounds 1    # a trial

All servers run on this machine, in turn, in one run: the same network, the same image, the same
number of kept-alive connections, two worker processes where the server has workers. Each has an
environment of its own below `outputs/bench`, made at the first use, which needs a network once, and
must give the right answers before and after each load. The load comes from `wrk`.

Linux and macOS. The result is stored only for a whole run of a clean checkout. docs/serving.md says
how each server is configured.
"""

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
from tqdm import tqdm

import labkit
from labkit import machine, results
from labkit.arguments import fail
from labkit.machine import free_port
from labkit.results import summary

HERE = Path(__file__).resolve().parent
PEERS = HERE / "api_peers"
MODEL = machine.ROOT / "tp1_mnist_api" / "model" / "mnist.tflite"
TOLERANCE = 1e-4
LONGEST_START_SECONDS = 120
WARM_UP_SECONDS = 1
LEAST_STORED_SECONDS = 10
SUMMARISED = (
    "requests_per_second", "p50_ms", "p95_ms", "p99_ms", "errors", "cold_start_seconds",
    "memory_mib",
)  # fmt: skip


class Absent(Exception):
    """A server that can't take part; the message says why."""


@dataclass(frozen=True)
class Server:
    """One way to serve the model, as `api_peers/servers.toml` says."""

    label: str
    command: str
    requirements: str
    route: str = "/predict"
    environment: dict[str, str] = field(default_factory=dict)
    prepare: str = ""
    is_mlflow: bool = False

    def request(self, content: Any) -> bytes:
        """`content`, such as {"image": [...]}, as a body; MLflow wants a list of inputs."""
        return json.dumps({"inputs": [content]} if self.is_mlflow else content).encode()

    def answer(self, body: bytes) -> dict:
        """The prediction in an answer's body."""
        content = json.loads(body)
        return content["predictions"][0] if self.is_mlflow else content


SERVERS = {
    name: Server(**{"requirements": f"{name}.txt"} | fields)
    for name, fields in tomllib.loads((PEERS / "servers.toml").read_text()).items()
}


@dataclass(frozen=True)
class Config:
    """What to measure."""

    seconds: int = 20
    """Length of each load, the same for all servers, 1 or more; wrk takes whole seconds."""
    rounds: int = 3
    """How often each server is started and loaded, 1 or more; they take turns."""
    connections: int = 16
    """Kept-alive connections, 1 or more."""
    servers: tuple[str, ...] = ()
    """Servers to measure, all if not given; a part is printed, not stored."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, seconds=1, rounds=1, connections=1)
        if unknown := set(self.servers) - set(SERVERS):
            raise ValueError(
                f"--servers must be among {', '.join(SERVERS)}, got {', '.join(sorted(unknown))}"
            )


# ------------------------------------------------------------------- environments and models


def run(command: list[str | Path], what: str, **environment: str) -> str:
    """Output of `command`; raises `Absent` with `what` and the last line of error output."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | environment
        ).stdout
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines() or ["no message"]
        raise Absent(f"{what}: {lines[-1].strip()}") from None


def environment_of(name: str, requirements: str) -> Path:
    """The Python of the environment `name`, made or remade if its requirements changed.

    `requirements` is a file beside the peers. Raises `Absent` where that fails, as it does without
    a network.
    """
    folder = machine.home() / "outputs" / "bench" / name
    python = folder / "bin" / "python"
    needed, constraints = PEERS / requirements, machine.ROOT / "constraints.txt"
    wanted = "\n".join([platform.python_version(), needed.read_text(), constraints.read_text()])
    marker = folder / "installed.txt"  # written last: an interrupted installation is made again
    if not marker.exists() or marker.read_text() != wanted:
        tqdm.write(f"{name}: making its environment in {folder}")
        what = "its environment can't be made"
        run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], what)
        install = [sys.executable, "-m", "pip", "--python", python, "install"]
        run([*install, "--constraint", constraints, "--requirement", needed], what)
        marker.write_text(wanted)
    return python


def make_models(folder: Path) -> None:
    """Write the served model as LiteRT, Keras and ONNX file, all from the first.

    Raises `Absent` where a conversion is impossible.
    """
    shutil.copytree(MODEL.parent, folder, dirs_exist_ok=True)  # the model and its card
    served = folder / MODEL.name
    to_keras = [sys.executable, PEERS / "to_keras.py", served, folder / "mnist.keras"]
    run(to_keras, "no Keras model", TF_CPP_MIN_LOG_LEVEL="2")
    python = environment_of("convert", "convert.txt")
    to_onnx = [python, "-m", "tf2onnx.convert", "--tflite", served]
    run([*to_onnx, "--output", folder / "mnist.onnx"], "no ONNX model", TF_CPP_MIN_LOG_LEVEL="2")


def megabytes_on_disk(folder: Path) -> float:
    """Size of an environment's files in MB (10^6 bytes), without compiled bytecode."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files if "__pycache__" not in path.parts) / 1e6


def versions_in(folder: Path, requirements: str) -> dict[str, str]:
    """Versions, in the environment `folder`, of what a requirements file names."""
    names = re.findall(r"^([\w-]+)", (PEERS / requirements).read_text(), re.MULTILINE)
    path = [str(path) for path in folder.glob("lib/python*/site-packages")]
    return {
        name: found.version
        for name in names
        for found in metadata.distributions(name=name, path=path)
    }


# ------------------------------------------------------------------------------- processes


def load(url: str, body: bytes, connections: int, seconds: int) -> dict[str, float]:
    """Right answers a second, percentiles in milliseconds, and errors, from one thread of wrk.

    An answer above 399 and a lost connection are errors.
    """
    output = run(
        ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s",
         "--timeout", "10s", "--script", HERE / "wrk.lua", url],
        "wrk failed",
        BODY=body.decode(),
    )  # fmt: skip
    return json.loads(re.search(r"^RESULT (.*)$", output, re.MULTILINE)[1])


def memory_mib(process: psutil.Process) -> float:
    """Memory of a process and its descendants in MiB.

    On Linux the proportional set size, in which a page that processes share counts once; elsewhere
    the resident set size, in which it counts for each.
    """
    total = 0
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            memory = member.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    return total / 2**20


def stop(process: psutil.Popen) -> None:
    """End a server with all its processes, first politely."""
    members = []
    with suppress(psutil.NoSuchProcess):
        members = process.children(recursive=True)
        process.terminate()
    psutil.wait_procs([process], timeout=20)
    for member in (process, *members):
        with suppress(psutil.NoSuchProcess):
            member.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # those that were born meanwhile
    process.wait()


def ask(url: str, body: bytes) -> requests.Response:
    """The answer to one POST of JSON."""
    return requests.post(url, body, headers={"Content-Type": "application/json"}, timeout=60)


@contextmanager
def started(
    server: Server, python: Path, models: Path, body: bytes
) -> Iterator[tuple[psutil.Popen, str, float]]:
    """The running server, its URL, and seconds to its first answer; it is stopped in any case.

    Raises `Absent` if it ends or does not answer in time, with the end of its log.
    """
    port = free_port()
    values = {"python": python, "port": port, "peers": PEERS, "models": models}
    prepare, command = (
        [part.format(**values) for part in line.split()]
        for line in (server.prepare, server.command)
    )
    # The environment's programs come first on the PATH, and nothing of this one is inherited.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {
        **inherited,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PORT": str(port),
        "MODELS": str(models),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **{name: value.format(**values) for name, value in server.environment.items()},
    }
    if prepare and not Path(prepare[-1]).exists():
        run(prepare, "its model can't be made", **environment)
    url = f"http://127.0.0.1:{port}{server.route}"
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = psutil.Popen(
            command, cwd=machine.ROOT, env=environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            while True:
                with suppress(requests.RequestException):
                    if ask(url, body).status_code < 500:
                        break
                seconds = time.perf_counter() - began
                if process.poll() is not None or seconds > LONGEST_START_SECONDS:
                    log.seek(0)
                    lines = log.read().decode(errors="replace").strip().splitlines() or ["silence"]
                    raise Absent(f"it does not start: {lines[-1]}")
                time.sleep(0.005)
            yield process, url, time.perf_counter() - began
        finally:
            stop(process)


# ------------------------------------------------------------------------- checks and main


def examples() -> tuple[list[list[int]], np.ndarray]:
    """Ten digits of the built-in sample as lists of 784 integers, and the model's answers."""
    from tp1_mnist_api.serving.model_file import Model

    images = labkit.load_mnist("sample").x_test[:10].reshape(-1, 784)
    return images.tolist(), Model(MODEL).predict(images.astype(np.float32) / 255)


def difference(server: Server, url: str, images: list[list[int]], expected: np.ndarray) -> float:
    """Largest difference of a probability to `expected`; raises `Absent` above the tolerance."""
    largest = 0.0
    for image, right in zip(images, expected, strict=True):
        response = ask(url, server.request({"image": image}))
        if response.status_code != 200:
            raise Absent(f"it answers {response.status_code} to a right request")
        answer = server.answer(response.content)
        found = np.array(answer["probabilities"], dtype=float).reshape(10)
        largest = max(largest, float(np.abs(found - right).max()))
        if not largest <= TOLERANCE or answer["prediction"] != right.argmax():
            raise Absent(f"its answer differs from the model's by {largest:.1e}")
    return largest


def refusals(server: Server, url: str, image: list[int]) -> dict[str, int]:
    """The status of the answer to each kind of bad input."""
    bad = {
        "783 values": {"image": image[1:]},
        "785 values": {"image": [*image, 0]},
        "value 256": {"image": [256, *image[1:]]},
        "value -1": {"image": [-1, *image[1:]]},
        "a text value": {"image": ["a", *image[1:]]},
        "a true value": {"image": [True, *image[1:]]},
        "an empty value": {"image": [None, *image[1:]]},
        "no image": {"picture": image},
        "image is no list": {"image": 5},
    }
    bodies = {name: server.request(content) for name, content in bad.items()}
    bodies["no JSON"] = server.request({"image": image})[:-2]
    return {name: ask(url, body).status_code for name, body in bodies.items()}


def measure(
    name: str, config: Config, models: Path, images: list[list[int]], expected: np.ndarray
) -> dict[str, Any]:
    """One round of one server: start, check, load, check; raises `Absent` where one fails."""
    server = SERVERS[name]
    python, body = environment_of(name, server.requirements), server.request({"image": images[0]})
    with started(server, python, models, body) as (process, url, cold_start_seconds):
        difference(server, url, images, expected)
        load(url, body, config.connections, WARM_UP_SECONDS)
        found = load(url, body, config.connections, config.seconds)
        if not found["requests_per_second"]:
            raise Absent(f"no right answer under load, {found['errors']} errors")
        found |= {"cold_start_seconds": cold_start_seconds, "memory_mib": memory_mib(process)}
        tqdm.write(f"{name}: " + ", ".join(f"{key} {found[key]:.2f}" for key in SUMMARISED))
        return found | {
            "largest_difference": difference(server, url, images, expected),
            "bad_inputs": refusals(server, url, images[0]),
        }


def measure_all(config: Config) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """The rounds of each server, and why servers are absent; each round begins with another."""
    images, expected = examples()
    names = list(dict.fromkeys(config.servers or SERVERS))
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    absent: dict[str, str] = {}
    turns = [
        (turn + place) % len(names) for turn in range(config.rounds) for place in range(len(names))
    ]
    with tempfile.TemporaryDirectory() as folder:
        try:
            make_models(Path(folder))
        except Absent as error:
            fail(f"no model for the other servers: {error}")
        for turn in tqdm(turns, unit="load"):
            if (name := names[turn]) in absent:
                continue
            try:
                rounds[name].append(measure(name, config, Path(folder), images, expected))
            except (Absent, requests.RequestException) as error:
                absent[name] = str(error)
                del rounds[name]
                tqdm.write(f"{name} is absent: {error}")
    return rounds, absent


def described(name: str, turns: list[dict[str, Any]]) -> dict[str, Any]:
    """What is stored of a server."""
    server = SERVERS[name]
    folder = environment_of(name, server.requirements).parents[1]
    return {
        "label": server.label,
        "largest_difference": max(turn["largest_difference"] for turn in turns),
        "bad_inputs": turns[-1]["bad_inputs"],
        "environment_mb": megabytes_on_disk(folder),
        "versions": versions_in(folder, server.requirements),
        **{key: summary([turn[key] for turn in turns]) for key in SUMMARISED},
    }


def ratios(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """How many times the requests a second of each other server ours answers, per round."""
    return {
        f"ratio_ours_over_{name}": summary(
            [
                ours["requests_per_second"] / theirs["requests_per_second"]
                for ours, theirs in zip(rounds["ours"], found, strict=True)
            ]
        )
        for name, found in rounds.items()
        if name != "ours" and "ours" in rounds
    }


def wrk_version() -> str:
    """wrk and its version; leaves with exit code 2 where it is not installed."""
    if not shutil.which("wrk"):
        fail("wrk, which makes the load, is not installed: apt install wrk, or brew install wrk")
    shown = subprocess.run(["wrk", "--version"], capture_output=True, text=True)
    return " ".join((shown.stdout + shown.stderr).split()[:2])


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Measure, print, write `results/bench.api_load.json`; returns the ratios' means."""
    config = labkit.parse(Config, argv)
    if sys.platform == "win32":
        fail("the servers run on Linux and macOS")
    generator = wrk_version()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped then too
    commit = machine.commit()  # before the run: what is edited meanwhile doesn't run
    rounds, absent = measure_all(config)
    if not rounds:
        fail("no server could be measured")
    found = ratios(rounds)
    for name, ratio in found.items():
        print(f"{name}: {ratio['mean']:.2f} (n = {ratio['n']})")
    if config.servers or config.seconds < LEAST_STORED_SECONDS or "ours" not in rounds:
        print(f"A trial: only all servers, {LEAST_STORED_SECONDS} s or longer, are stored.")
    elif commit.endswith(("dirty", "unknown")):
        print("Not stored: the checkout has uncommitted changes. Commit them, then measure.")
    else:
        content = {
            "argv": sys.argv[1:] if argv is None else argv,
            "connections": config.connections,
            "seconds": config.seconds,
            "generator": generator,
            "memory": "proportional set size" if sys.platform == "linux" else "resident set size",
            "servers": {name: described(name, turns) for name, turns in rounds.items()},
            "absent": absent,
            **found,
            "machine": machine.describe(),
            "versions": machine.versions(),
            "commit": commit,
        }
        results.write("bench.api_load", content)
    return {name: ratio["mean"] for name, ratio in found.items()}


if __name__ == "__main__":
    main()
