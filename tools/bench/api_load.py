"""How many requests a second the MNIST API answers, beside other ways to serve the same model.

    python tools/bench/api_load.py                                        # all servers, 3 rounds
    python tools/bench/api_load.py --servers ours fastapi --seconds 2 --rounds 1    # a trial

All servers run on this machine, in turn, in one run: the same network, the same image, the same
number of kept-alive connections, two worker processes where the server has workers. Each has an
environment of its own below `outputs/bench`, made at the first use, which needs a network once, and
must give the right answers before and after its load. The load comes from `wrk` if it is installed,
else from Python, which is slower and makes fast servers look alike; the result says which.

Linux and macOS. The result is stored only for a whole run of a clean checkout. docs/serving.md says
how each server is configured.
"""

import http.client
import json
import multiprocessing
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

import labkit
from labkit import machine, results
from labkit.arguments import fail
from labkit.machine import free_port
from labkit.results import summary

PEERS = Path(__file__).resolve().parent / "api_peers"
LAB = machine.ROOT / "tp1_mnist_api"
MODEL = LAB / "model" / "mnist.tflite"
HEADERS = {"Content-Type": "application/json"}
TOLERANCE = 1e-4
LONGEST_START_SECONDS = 120
WARM_UP_SECONDS = 1
LEAST_STORED_SECONDS = 10


class Absent(Exception):
    """A server that can't take part; the message says why."""


@dataclass(frozen=True)
class Server:
    """One way to serve the model. `{python}`, `{port}` and `{models}` are filled in."""

    label: str
    command: tuple[str, ...]
    requirements: Path
    route: str = "/predict"
    environment: dict[str, str] = field(default_factory=dict)
    prepare: tuple[str, ...] = ()
    is_mlflow: bool = False

    def request(self, content: Any) -> bytes:
        """`content`, such as {"image": [...]}, as a body; MLflow wants a list of inputs."""
        return json.dumps({"inputs": [content]} if self.is_mlflow else content).encode()

    def answer(self, body: bytes) -> dict:
        """The prediction in an answer's body."""
        content = json.loads(body)
        return content["predictions"][0] if self.is_mlflow else content


SERVERS: dict[str, Server] = {
    "ours": Server(
        "this repository: Flask on granian, LiteRT",
        ("{python}", "-m", "tp1_mnist_api.serving.server"),
        LAB / "requirements-serving.txt",
        environment={"WORKERS": "2", "MODEL": str(MODEL)},
    ),
    "original": Server(
        "Flask's development server, `model.predict`",
        ("{python}", str(PEERS / "original.py")),
        PEERS / "original.txt",
    ),
    "fastapi": Server(
        "FastAPI on uvicorn, ONNX Runtime",
        (
            "{python}", "-m", "uvicorn", "fastapi_app:app", "--app-dir", str(PEERS),
            "--port", "{port}", "--workers", "2",
        ),
        PEERS / "fastapi.txt",
    ),
    "mlflow": Server(
        "MLflow's model server, ONNX Runtime",
        (
            "{python}", "-m", "mlflow", "models", "serve", "--model-uri", "{models}/mlflow",
            "--env-manager", "local", "--host", "127.0.0.1", "--port", "{port}", "--workers", "2",
        ),
        PEERS / "mlflow.txt",
        route="/invocations",
        environment={"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(PEERS)},
        prepare=("{python}", str(PEERS / "mlflow_model.py"), "{models}/mnist.onnx"),
        is_mlflow=True,
    ),
    "litserve": Server(
        "LitServe, ONNX Runtime",
        ("{python}", str(PEERS / "litserve_app.py")),
        PEERS / "litserve.txt",
    ),
    "gunicorn": Server(
        "Flask on gunicorn, LiteRT",
        (
            "{python}", "-m", "gunicorn", "gunicorn_app:app", "--chdir", str(PEERS),
            "--bind", "127.0.0.1:{port}", "--workers", "2", "--threads", "8",
            "--access-logfile", "-",
        ),
        PEERS / "gunicorn.txt",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What to measure."""

    seconds: float = 20
    """Length of each load, the same for all servers, 0.5 to 3600."""
    rounds: int = 3
    """How often each server is started and loaded, 1 to 100; they take turns."""
    connections: int = 16
    """Kept-alive connections, 1 to 1024."""
    servers: tuple[str, ...] = ()
    """Servers to measure, all if not given; a part is printed, not stored."""
    generator: Literal["auto", "wrk", "python"] = "auto"
    """What makes the load: auto (wrk if installed), wrk or python."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        for name, lowest, highest in (
            ("seconds", 0.5, 3600), ("rounds", 1, 100), ("connections", 1, 1024),
        ):  # fmt: skip
            if not lowest <= getattr(self, name) <= highest:
                raise ValueError(
                    f"--{name} must be {lowest} to {highest}, got {getattr(self, name)}"
                )
        if unknown := set(self.servers) - set(SERVERS):
            raise ValueError(
                f"--servers must be among {', '.join(SERVERS)}, got {', '.join(sorted(unknown))}"
            )
        if self.generator == "wrk" and not shutil.which("wrk"):
            raise ValueError("--generator wrk: wrk is not installed")


# ------------------------------------------------------------------- environments and models


def run(command: list[str], what: str, **options: Any) -> str:
    """Output of `command`; raises `Absent` with its last line of error output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    except OSError as error:
        raise Absent(f"{what}: {error}") from None
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines() or ["no message"]
        raise Absent(f"{what}: {lines[-1].strip()}") from None
    return done.stdout


def environment_of(name: str, requirements: Path) -> Path:
    """The Python of the environment `name`, made or remade if its requirements changed.

    Raises `Absent` where that fails, as without a network.
    """
    folder = machine.home() / "outputs" / "bench" / name
    python = folder / "bin" / "python"
    constraints = machine.ROOT / "constraints.txt"
    wanted = "\n".join(
        [platform.python_version(), requirements.read_text(), constraints.read_text()]
    )
    marker = folder / "installed.txt"  # written last: an interrupted installation is made again
    if marker.exists() and marker.read_text() == wanted:
        return python
    tqdm.write(f"{name}: making its environment in {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if uv := shutil.which("uv"):
        create = [uv, "venv", "--quiet", "--python", sys.executable, str(folder)]
        install = [uv, "pip", "install", "--python", str(python)]
    else:
        create = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
        install = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    what = "its environment can't be made"
    run(create, what)
    run([*install, "--constraint", str(constraints), "--requirement", str(requirements)], what)
    marker.write_text(wanted)
    return python


def convert(command: list[str], target: Path, environment: dict[str, str]) -> None:
    """Run `command TARGET` unless `target` exists; it appears whole or not at all.

    Raises `Absent` where the conversion fails.
    """
    if target.exists():
        return
    part = target.with_name(f"part.{target.name}")
    if part.is_dir():
        shutil.rmtree(part)
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **environment}
    run([*command, str(part)], f"{target.name} can't be made", env=quiet)
    part.rename(target)


def prepare_models() -> Path:
    """The folder with the served model as LiteRT, Keras and ONNX file, all from the first.

    Raises `Absent` where a conversion is impossible.
    """
    python = environment_of("convert", PEERS / "convert.txt")
    folder = machine.home() / "outputs" / "bench" / "models"
    source = folder / "mnist.tflite"
    if not source.exists() or source.read_bytes() != MODEL.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(MODEL, source)
    to_keras = [sys.executable, str(PEERS / "to_keras.py"), str(source)]
    convert(to_keras, folder / "mnist.keras", {})
    to_onnx = [str(python), "-m", "tf2onnx.convert", "--tflite", str(source), "--output"]
    convert(to_onnx, folder / "mnist.onnx", {})
    return folder


def megabytes_on_disk(folder: Path) -> float:
    """Size of an environment's files in MB (10^6 bytes), without compiled bytecode."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files if "__pycache__" not in path.parts) / 1e6


def versions_in(python: Path, requirements: Path) -> dict[str, str]:
    """Installed versions of what a requirements file names."""
    names = re.findall(r"^([\w-]+)", requirements.read_text(), re.MULTILINE)
    code = (
        "import json, sys\nfrom importlib import metadata\nfound = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = metadata.version(name)\n"
        "    except metadata.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    return json.loads(run([str(python), "-c", code, *names], "no versions"))


# ------------------------------------------------------------------------------- load


@dataclass(frozen=True)
class Load:
    """What a load found: right answers a second, percentiles in milliseconds, failed requests."""

    requests_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int


WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[%s]==]
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests":%%d,"microseconds":%%d,"status":%%d,"other":%%d,' ..
    '"p50":%%f,"p95":%%f,"p99":%%f}\\n',
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
"""


def load_from_wrk(port: int, route: str, body: bytes, connections: int, seconds: float) -> Load:
    """Load by one thread of wrk, which takes whole seconds: they are rounded up."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK_SCRIPT % body.decode())
        script.flush()
        command = [
            "wrk", "--threads", "1", "--connections", str(connections),
            "--duration", f"{-int(-seconds // 1)}s", "--timeout", "10s",
            "--script", script.name, f"http://127.0.0.1:{port}{route}",
        ]  # fmt: skip
        return read_wrk(run(command, "wrk failed"))


def read_wrk(output: str) -> Load:
    """The load from wrk's output; an answer above 399 or a lost connection is an error."""
    found = json.loads(re.search(r"^RESULT (.*)$", output, re.MULTILINE)[1])
    right = found["requests"] - found["status"]
    return Load(
        requests_per_second=right / (found["microseconds"] / 1e6),
        p50_ms=found["p50"] / 1000,
        p95_ms=found["p95"] / 1000,
        p99_ms=found["p99"] / 1000,
        errors=found["status"] + found["other"],
    )


def load_from_python(port: int, route: str, body: bytes, connections: int, seconds: float) -> Load:
    """Load by threads of one or two processes of Python's http.client."""
    processes = min(2, connections)
    shares = [len(share) for share in np.array_split(range(connections), processes)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        asked = [pool.submit(ask_repeatedly, port, route, body, share, seconds) for share in shares]
        parts = [part.result() for part in asked]
    latencies = np.concatenate([latencies for latencies, _, _ in parts])
    percentiles = np.percentile(latencies, [50, 95, 99]) if len(latencies) else [np.nan] * 3
    return Load(
        sum(len(latencies) / elapsed for latencies, _, elapsed in parts),
        *(float(value) for value in percentiles),
        errors=sum(errors for _, errors, _ in parts),
    )


def ask_repeatedly(
    port: int, route: str, body: bytes, connections: int, seconds: float
) -> tuple[list[float], int, float]:
    """Milliseconds of each right answer, failed requests and seconds, of one process."""
    latencies: list[float] = []
    errors: list[object] = []
    began = time.perf_counter()

    def one_connection() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while (asked := time.perf_counter()) < began + seconds:
            try:
                connection.request("POST", route, body, HEADERS)
                response = connection.getresponse()
                response.read()
                if 200 <= response.status < 300:
                    latencies.append(1000 * (time.perf_counter() - asked))
                else:
                    errors.append(response.status)
            except (OSError, http.client.HTTPException) as error:
                errors.append(error)
                connection.close()  # the next request opens it again
                time.sleep(0.01)
        connection.close()

    threads = [threading.Thread(target=one_connection) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies, len(errors), time.perf_counter() - began


# ------------------------------------------------------------------------------ processes


def family(pid: int) -> dict[int, int]:
    """A process and all that descend from it: resident KiB by process id."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, check=True
    ).stdout
    rows = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = {own: size for own, _, size in rows if own == pid}
    while new := {own: size for own, parent, size in rows if parent in found and own not in found}:
        found |= new
    return found


def memory_mib(pid: int) -> float:
    """Resident MiB of a process and its descendants.

    On Linux the proportional set size, in which a page that processes share counts once; elsewhere
    the resident set size, in which it counts for each.
    """
    total = 0
    for own, resident in family(pid).items():
        with suppress(OSError):
            text = Path(f"/proc/{own}/smaps_rollup").read_text()
            resident = int(re.search(r"^Pss: +(\d+)", text, re.MULTILINE)[1])
        total += resident
    return total / 1024


def stop(process: subprocess.Popen) -> None:
    """End a server with all its processes, first politely."""
    members = family(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    for pid in members:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True)
class Running:
    """A started server, its port, and the seconds from its start to its first answer."""

    process: subprocess.Popen
    port: int
    cold_start_seconds: float


def ask(port: int, route: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of one POST."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", route, body, HEADERS)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@contextmanager
def started(server: Server, python: Path, models: Path, body: bytes) -> Iterator[Running]:
    """The running server, once it answers; it is stopped whatever happens.

    Raises `Absent` if it ends or does not answer in time, with the end of its log.
    """
    port = free_port()
    command = [part.format(python=python, port=port, models=models) for part in server.command]
    # The environment's programs come first on the PATH, and nothing of this one is inherited.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {
        **inherited,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PORT": str(port),
        "MODELS": str(models),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **server.environment,
    }
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=machine.ROOT, env=environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            while True:
                with suppress(OSError, http.client.HTTPException):
                    status, answer = ask(port, server.route, body)
                    if status == 200:
                        break
                    if status in (400, 422):
                        raise Absent(f"it refuses a right request: {answer.decode()[:200]}")
                if process.poll() is not None or (
                    time.perf_counter() - began > LONGEST_START_SECONDS
                ):
                    log.seek(0)
                    lines = log.read().decode(errors="replace").strip().splitlines() or ["silence"]
                    raise Absent(f"it does not start: {lines[-1]}")
                time.sleep(0.005)
            yield Running(process, port, time.perf_counter() - began)
        finally:
            stop(process)


# ------------------------------------------------------------------------- checks and main


def examples() -> tuple[list[list[int]], np.ndarray]:
    """Ten digits of the built-in sample as lists of 784 integers, and the model's answers."""
    from tp1_mnist_api.serving.model_file import Model

    images = labkit.load_mnist("sample").x_test[:10].reshape(-1, 784)
    return images.tolist(), Model(MODEL).predict(images.astype(np.float32) / 255)


def difference(server: Server, port: int, images: list[list[int]], expected: np.ndarray) -> float:
    """Largest difference of a probability to `expected`; raises `Absent` above the tolerance."""
    largest = 0.0
    for image, right in zip(images, expected, strict=True):
        status, body = ask(port, server.route, server.request({"image": image}))
        if status != 200:
            raise Absent(f"it answers {status} to a right request")
        answer = server.answer(body)
        found = np.array(answer["probabilities"], dtype=float).reshape(10)
        largest = max(largest, float(np.abs(found - right).max()))
        if not largest <= TOLERANCE or answer["prediction"] != right.argmax():
            raise Absent(f"its answer differs from the model's by {largest:.1e}")
    return largest


def refusals(server: Server, port: int, image: list[int]) -> dict[str, int]:
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
    return {name: ask(port, server.route, body)[0] for name, body in bodies.items()}


def refused(statuses: dict[str, int]) -> int:
    """How many bad inputs were answered as the client's mistake, 4xx."""
    return sum(400 <= status < 500 for status in statuses.values())


def measure(
    config: Config, chosen: dict[str, Server]
) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, float]]], dict[str, str]]:
    """What is known of each server, its rounds, and why servers are absent."""
    images, expected = examples()
    load = load_from_python if generator_name(config) == "python" else load_from_wrk
    facts: dict[str, dict[str, Any]] = {}
    rounds: dict[str, list[dict[str, float]]] = {}
    absent: dict[str, str] = {}
    pythons: dict[str, Path] = {}
    try:
        models = prepare_models()
    except Absent as error:
        fail(f"no model for the other servers: {error}")

    def exclude(name: str, error: Absent) -> None:
        absent[name] = str(error)
        facts.pop(name, None)
        rounds.pop(name, None)
        tqdm.write(f"{name} is absent: {error}")

    for name, server in chosen.items():
        try:
            python = pythons[name] = environment_of(name, server.requirements)
            if server.prepare:
                command = [part.format(python=python, models=models) for part in server.prepare]
                convert(command, models / name, server.environment)
            with started(server, python, models, server.request({"image": images[0]})) as running:
                facts[name] = {
                    "label": server.label,
                    "largest_difference": difference(server, running.port, images, expected),
                    "bad_inputs": refusals(server, running.port, images[0]),
                    "environment_mb": megabytes_on_disk(python.parents[1]),
                    "versions": versions_in(python, server.requirements),
                }
            rounds[name] = []
            statuses = facts[name]["bad_inputs"]
            tqdm.write(f"{name}: refuses {refused(statuses)} of {len(statuses)} bad inputs")
        except Absent as error:
            exclude(name, error)

    with tqdm(total=config.rounds * len(rounds), unit="load") as progress:
        for turn in range(config.rounds):
            if not (names := list(rounds)):
                fail("no server could be measured")
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                progress.set_description(name)
                server, body = chosen[name], chosen[name].request({"image": images[0]})
                try:
                    with started(server, pythons[name], models, body) as running:
                        target = (running.port, server.route, body, config.connections)
                        load(*target, WARM_UP_SECONDS)
                        found = load(*target, config.seconds)
                        if not found.requests_per_second:
                            raise Absent(f"no right answer under load, {found.errors} errors")
                        memory = memory_mib(running.process.pid)
                        difference(server, running.port, images, expected)
                    rounds[name].append(
                        {
                            **vars(found),
                            "cold_start_seconds": running.cold_start_seconds,
                            "memory_mib": memory,
                        }
                    )
                    tqdm.write(line(name, rounds[name][-1]))
                except Absent as error:
                    exclude(name, error)
                progress.update()
    return facts, rounds, absent


def line(name: str, found: dict[str, float]) -> str:
    """One round of one server, to be read."""
    return (
        f"{name:9} {found['requests_per_second']:8.1f}/s  p50 {found['p50_ms']:.2f}  "
        f"p95 {found['p95_ms']:.2f}  p99 {found['p99_ms']:.2f} ms  {found['errors']} errors  "
        f"{found['memory_mib']:.0f} MiB  start {found['cold_start_seconds']:.2f} s"
    )


def generator_name(config: Config) -> str:
    """`wrk` or `python`."""
    if config.generator != "auto":
        return config.generator
    return "wrk" if shutil.which("wrk") else "python"


def generator_version(name: str) -> str:
    """The load generator with its version."""
    if name == "python":
        return f"python {platform.python_version()}, http.client"
    shown = subprocess.run(["wrk", "--version"], capture_output=True, text=True)
    return " ".join((shown.stdout + shown.stderr).split()[:2])


def ratios(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, Any]]:
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


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Measure, print, write `results/bench.api_load.json`; returns the ratios' means."""
    config = labkit.parse(Config, argv)
    if sys.platform == "win32":
        fail("the servers run on Linux and macOS")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped then too
    commit = machine.commit()  # before the run: what is edited meanwhile doesn't run
    chosen = {name: SERVERS[name] for name in config.servers or SERVERS}
    facts, rounds, absent = measure(config, chosen)
    found = ratios(rounds)
    for name, ratio in found.items():
        print(f"{name}: {ratio['mean']:.2f} (n = {ratio['n']})")
    means = {name: ratio["mean"] for name, ratio in found.items()}
    if config.servers or config.seconds < LEAST_STORED_SECONDS or "ours" not in rounds:
        print(f"A trial: only all servers, {LEAST_STORED_SECONDS} s or longer, are stored.")
        return means
    if commit.endswith(("dirty", "unknown")):
        print("Not stored: the checkout has uncommitted changes. Commit them, then measure.")
        return means
    content = {
        "argv": sys.argv[1:] if argv is None else argv,
        "connections": config.connections,
        "seconds": config.seconds,
        "generator": generator_version(generator_name(config)),
        "memory": "proportional set size" if sys.platform == "linux" else "resident set size",
        "servers": {
            name: {
                **facts[name],
                **{key: summary([turn[key] for turn in turns]) for key in turns[0]},
            }
            for name, turns in rounds.items()
        },
        "absent": absent,
        **found,
        "machine": machine.describe(),
        "versions": machine.versions(),
        "commit": commit,
    }
    results.write("bench.api_load", content)
    return means


if __name__ == "__main__":
    main()
