"""Hostile requests against a real server: is each refused in JSON, and does memory stay flat?

    python tools/bench/api_fuzz_memory.py                  # 10,000 requests; Linux and macOS
    python tools/bench/api_fuzz_memory.py --requests 500   # a first look

Several clients send JSON nested 100,000 deep, bodies of random bytes, values of the wrong type or
range, cut and corrupted pictures, decompression bombs and pictures of 100 million pixels. Another
client asks about a digit all the while and must get its right answer each time. Resident memory is
compared before and after, when the first tenth of the requests has warmed everything up.
"""

import io
import json
import os
import random
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import psutil
import requests
from PIL import Image
from tqdm import tqdm

import labkit
from labkit.machine import ROOT, free_port
from tp1_mnist_api.client import wait_until_ready
from tp1_mnist_api.serving.model_file import LAB, Model

JSON = "application/json"
MODEL = LAB / "model" / "mnist.tflite"


@dataclass(frozen=True)
class Config:
    """Settings of one attack."""

    requests: int = 10_000
    """Hostile requests, 100 or more."""
    clients: int = 4
    """Threads that send them, 1 or more."""
    growth: float = 0.10
    """Allowed growth of the workers' resident memory, as a fraction."""
    seed: int = 0
    """Seed of the requests."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, requests=100, clients=1)


@dataclass(frozen=True)
class Attack:
    """One hostile request."""

    body: bytes
    content_type: str = JSON
    path: str = "/predict"
    method: str = "POST"
    may_succeed: bool = False
    """Random damage may leave a readable picture; everything else must be refused."""


# --- Requests -------------------------------------------------------------------------------------


def bomb(side: int) -> bytes:
    """A black square as PNG, whose file is a thousand times smaller than its pixels."""
    header = side.to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    packer, row = zlib.compressobj(), bytes(side + 1)
    data = b"".join([packer.compress(row) for _ in range(side)]) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4) + name + body + zlib.crc32(name + body).to_bytes(4)
        for name, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


def picture(form: str, digit: np.ndarray) -> bytes:
    """`digit`, (28, 28), enlarged, in the format `form`."""
    file = io.BytesIO()
    Image.fromarray(255 - digit).resize((280, 280)).save(file, form)
    return file.getvalue()


def attacks(digit: np.ndarray, rng: random.Random) -> dict[str, Callable[[], Attack]]:
    """Makers of the requests of each kind, which take their randomness from `rng`."""
    pictures = {f"image/{form}": picture(form, digit) for form in ("png", "jpeg", "webp")}
    bombs = [bomb(4000), bomb(10_000), bomb(20_000)]  # the first is decoded
    deep = [
        b'{"image": ' + b"[" * 100_000,
        b'{"image": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"images": ' + b'{"a":' * 100_000,
        b'{"images": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    ]
    wrong = ["a", "", None, True, {}, [], [[1]], -1, 256, 1e300, float("nan"), 10**400, "1" * 999]
    kinds = [JSON, *pictures, "text/plain", "image/gif", "multipart/form-data; boundary=x"]
    routes = {"image": "/predict", "images": "/predict/batch"}
    nowhere = ["/predict/", "/%00", "/..%2f..%2fetc/passwd", "/" + "a" * 5000]

    def wrong_value() -> Attack:
        values: list = [rng.randrange(256) for _ in range(784)]
        values[rng.randrange(784)] = rng.choice(wrong)
        return Attack(json.dumps({"image": values}).encode())

    def wrong_shape() -> Attack:
        length = rng.choice([0, 1, 27, 28, 783, 785, rng.randrange(786, 5000)])
        shape = [[rng.randrange(256)] * length] * rng.choice([1, 2, 27, 300])
        name, path = rng.choice(list(routes.items()))
        return Attack(json.dumps({name: shape}).encode()[: 2**20], path=path)

    def wrong_object() -> Attack:
        value = rng.choice([*wrong, *({name: rng.choice(wrong)} for name in routes)])
        return Attack(json.dumps(value).encode(), path=rng.choice(list(routes.values())))

    def cut_picture() -> Attack:
        kind, whole = rng.choice(list(pictures.items()))
        return Attack(whole[: rng.randrange(len(whole) // 2)], kind)

    def corrupted_picture() -> Attack:
        kind, whole = rng.choice(list(pictures.items()))
        body = bytearray(whole)
        for _ in range(rng.randrange(1, 20)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        return Attack(bytes(body), kind, may_succeed=True)

    return {
        "nested 100,000 deep": lambda: Attack(rng.choice(deep)),
        "wrong value": wrong_value,
        "wrong shape": wrong_shape,
        "wrong object": wrong_object,
        "random bytes": lambda: Attack(rng.randbytes(rng.randrange(20_000)), rng.choice(kinds)),
        "cut picture": cut_picture,
        "corrupted picture": corrupted_picture,
        "bomb": lambda: Attack(rng.choice(bombs), "image/png"),
        "too long": lambda: Attack(b" " * rng.randrange(2**20 + 1, 2**21)),
        "no such route": lambda: Attack(
            b"x", path=rng.choice(nowhere), method=rng.choice(["GET", "POST", "PUT", "DELETE"])
        ),
    }


# --- Attack ---------------------------------------------------------------------------------------


def fault(attack: Attack, response: requests.Response) -> str:
    """What is wrong with an answer; nothing is."""
    allowed = range(200 if attack.may_succeed else 400, 500)
    if response.status_code not in allowed:
        return f"status {response.status_code}"
    if response.headers.get("Content-Type") != JSON:
        return f"content type {response.headers.get('Content-Type')}"
    if response.status_code >= 400 and list(response.json()) != ["error"]:
        return f"body {response.text[:80]}"
    return ""


def send(url: str, attack: Attack) -> tuple[int | str, str]:
    """The status of the answer, or the error instead of one, and what is wrong with it."""
    try:
        response = requests.request(  # a new connection each time: any worker gets it
            attack.method, url + attack.path, data=attack.body, timeout=30,
            headers={"Content-Type": attack.content_type},
        )  # fmt: skip
        return response.status_code, fault(attack, response)
    except (requests.RequestException, ValueError) as error:
        return type(error).__name__, repr(error)


def ask_until(stopped: threading.Event, url: str, image: np.ndarray) -> tuple[list[float], list]:
    """Seconds of each answer to the question about `image`, and the failures among them."""
    label = int(Model(MODEL).predict(np.float32(image.reshape(1, 784)) / 255).argmax())
    body, seconds, failures = {"image": image.tolist()}, [], []
    with requests.Session() as session:
        while not stopped.wait(0.005):
            began = time.perf_counter()
            try:
                answer = session.post(f"{url}/predict", json=body, timeout=10)
                if answer.json().get("prediction") != label:
                    failures.append(answer.text[:80])
            except (requests.RequestException, ValueError) as error:
                failures.append(repr(error))
            seconds.append(time.perf_counter() - began)
    return seconds, failures


def workers_of(server: psutil.Popen) -> list[psutil.Process]:
    """The workers' processes."""
    return [
        child for child in server.children() if "resource_tracker" not in " ".join(child.cmdline())
    ]


def resident_mib(workers: list[psutil.Process]) -> float:
    """Resident memory of `workers`, together."""
    return sum(worker.memory_info().rss for worker in workers) / 2**20


def main(argv: list[str] | None = None) -> None:
    """Attack, print what came back; exit code 1 for any fault, lost answer or growth."""
    config = labkit.parse(Config, argv)
    rng = random.Random(config.seed)
    image = labkit.load_mnist("sample").x_test[0]
    makers = attacks(image, rng)
    planned = [*makers, *rng.choices(list(makers), k=config.requests - len(makers))]
    statuses: Counter = Counter()
    faults: list[str] = []
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = psutil.Popen(
        [sys.executable, "-m", "tp1_mnist_api.serving.server"], cwd=ROOT,
        env=os.environ | {"PORT": str(port), "MODEL": str(MODEL), "LOG_REQUESTS": "0"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    stopped = threading.Event()
    try:
        wait_until_ready(url, is_alive=lambda: server.poll() is None)
        workers = workers_of(server)
        memory = [resident_mib(workers)]
        with ThreadPoolExecutor(config.clients + 1) as pool:
            good = pool.submit(ask_until, stopped, url, image)
            try:
                for part in tqdm(range(10), desc="tenths"):
                    kinds = planned[part::10]
                    answers = pool.map(partial(send, url), [makers[kind]() for kind in kinds])
                    for kind, (status, wrong) in zip(kinds, answers, strict=True):
                        statuses[kind, status] += 1
                        faults += [f"{kind}: {wrong}"] if wrong else []
                    memory.append(resident_mib(workers))
            finally:
                stopped.set()
        seconds, failures = good.result()
        if workers_of(server) != workers:
            raise psutil.NoSuchProcess(server.pid)
    except psutil.NoSuchProcess:
        raise SystemExit("FAILED: a worker died") from None
    finally:
        server.terminate()
        server.wait(timeout=40)

    for kind in makers:
        print(f"{kind:20}", {status: n for (name, status), n in statuses.items() if name == kind})
    print(
        f"{statuses.total()} hostile requests, {len(faults)} faults {faults[:5]}\n"
        f"{len(seconds)} good ones meanwhile, {len(failures)} failed {failures[:5]}, "
        f"slowest {1000 * max(seconds):.0f} ms\n"
        f"resident memory of {len(workers)} workers in MiB, at the start and after each tenth: "
        f"{', '.join(f'{value:.0f}' for value in memory)}"
    )
    before, after = memory[1], memory[-1]
    if faults or failures or after > (1 + config.growth) * before:
        raise SystemExit("FAILED")


if __name__ == "__main__":
    main()
