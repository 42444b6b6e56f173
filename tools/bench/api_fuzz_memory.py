"""Hostile requests against a real server: is each refused in JSON, and does memory stay flat?

    python tools/bench/api_fuzz_memory.py                  # 10,000 requests; Linux
    python tools/bench/api_fuzz_memory.py --requests 500   # a first look

Several clients send JSON nested 100,000 deep, bodies of random bytes, values of the wrong type or
range, cut and corrupted pictures, decompression bombs and pictures of 100 million pixels. Another
client asks about a digit all the while and must get its right answer each time. Resident memory is
compared before and after, when the first tenth of the requests has warmed everything up.
"""

import io
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import requests
from PIL import Image
from tqdm import tqdm

import labkit
from labkit.arguments import fail
from labkit.machine import ROOT, free_port
from tp1_mnist_api.client import wait_until_ready
from tp1_mnist_api.serving.model_file import LAB, Model

JSON = "application/json"


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
        if self.requests < 100:
            raise ValueError(f"--requests must be 100 or more, got {self.requests}")
        if self.clients < 1:
            raise ValueError(f"--clients must be 1 or more, got {self.clients}")


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


def png(width: int, height: int) -> bytes:
    """A black picture of any size whose file is a thousand times smaller."""
    packer, row = zlib.compressobj(9), bytes(width + 1)
    data = b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 0, 0, 0, 0])
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4) + name + body + zlib.crc32(name + body).to_bytes(4)
        for name, body in chunks
    )


def picture(form: str, digit: np.ndarray) -> bytes:
    """`digit`, (28, 28), enlarged, in the format `form`."""
    file = io.BytesIO()
    Image.fromarray(255 - digit).resize((280, 280)).save(file, form)
    return file.getvalue()


def attacks(digit: np.ndarray) -> dict[str, Callable[[random.Random], Attack]]:
    """Makers of the requests of each kind, from a generator of random numbers."""
    pictures = {form: picture(form, digit) for form in ("PNG", "JPEG", "WEBP")}
    bombs = [png(4000, 4000), png(10_000, 10_000), png(20_000, 20_000)]  # the first is decoded
    deep = [
        b'{"image": ' + b"[" * 100_000,
        b'{"image": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"images": ' + b'{"a":' * 100_000,
        b'{"images": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    ]
    wrong = ["a", "", None, True, {}, [], [[1]], -1, 256, 1e300, float("nan"), 10**400, "1" * 999]
    strange = ["text/plain", "image/gif", "multipart/form-data", "multipart/form-data; boundary=x"]

    def wrong_value(rng: random.Random) -> Attack:
        values: list = [rng.randrange(256) for _ in range(784)]
        values[rng.randrange(784)] = rng.choice(wrong)
        return Attack(json.dumps({"image": values}).encode())

    def wrong_shape(rng: random.Random) -> Attack:
        length = rng.choice([0, 1, 27, 28, 783, 785, rng.randrange(786, 5000)])
        shape = [[rng.randrange(256)] * length] * rng.choice([1, 2, 27, 300])
        name, path = rng.choice([("image", "/predict"), ("images", "/predict/batch")])
        return Attack(json.dumps({name: shape}).encode()[: 2**20], path=path)

    def wrong_object(rng: random.Random) -> Attack:
        value = rng.choice([*wrong, {"image": rng.choice(wrong)}, {"images": rng.choice(wrong)}])
        return Attack(json.dumps(value).encode(), path=rng.choice(["/predict", "/predict/batch"]))

    def random_bytes(rng: random.Random) -> Attack:
        kind = rng.choice([JSON, "image/png", "image/jpeg", "image/webp", *strange])
        return Attack(rng.randbytes(rng.randrange(20_000)), kind)

    def cut_picture(rng: random.Random) -> Attack:
        form, whole = rng.choice(list(pictures.items()))
        body = whole[: rng.randrange(len(whole) // 2)]
        return Attack(body, f"image/{form.lower()}")

    def corrupted_picture(rng: random.Random) -> Attack:
        form, whole = rng.choice(list(pictures.items()))
        body = bytearray(whole)
        for _ in range(rng.randrange(1, 20)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        return Attack(bytes(body), f"image/{form.lower()}", may_succeed=True)

    def too_long(rng: random.Random) -> Attack:
        return Attack(b" " * rng.randrange(2**20 + 1, 2**21))

    def no_such_route(rng: random.Random) -> Attack:
        path = rng.choice(["/predict/", "/%00", "/..%2f..%2fetc/passwd", "/" + "a" * 5000])
        return Attack(b"x", path=path, method=rng.choice(["GET", "POST", "PUT", "DELETE"]))

    return {
        "nested 100,000 deep": lambda rng: Attack(rng.choice(deep)),
        "wrong value": wrong_value,
        "wrong shape": wrong_shape,
        "wrong object": wrong_object,
        "random bytes": random_bytes,
        "cut picture": cut_picture,
        "corrupted picture": corrupted_picture,
        "bomb": lambda rng: Attack(rng.choice(bombs), "image/png"),
        "too long": too_long,
        "no such route": no_such_route,
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


class GoodClient(threading.Thread):
    """Asks about `image` again and again until `stopped`; counts right answers and failures."""

    def __init__(self, url: str, image: np.ndarray, label: int) -> None:
        """Prepare; `start` starts."""
        super().__init__()
        self.url, self.body, self.label = f"{url}/predict", {"image": image.tolist()}, label
        self.stopped = threading.Event()
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def run(self) -> None:
        """Ask until stopped."""
        with requests.Session() as session:
            while not self.stopped.is_set():
                began = time.perf_counter()
                try:
                    answer = session.post(self.url, json=self.body, timeout=10)
                    if answer.json().get("prediction") != self.label:
                        self.failures.append(answer.text[:80])
                except (requests.RequestException, ValueError) as error:
                    self.failures.append(repr(error))
                self.seconds.append(time.perf_counter() - began)
                time.sleep(0.005)


def workers_of(server: subprocess.Popen) -> list[int]:
    """Process ids of the workers."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def resident_megabytes(workers: list[int]) -> float:
    """Resident memory of `workers`, together, in units of 2**20 bytes."""
    pages = [int(Path(f"/proc/{worker}/statm").read_text().split()[1]) for worker in workers]
    return sum(pages) * 4096 / 2**20


def send_all(
    url: str, planned: list[tuple[str, Attack]], clients: int, statuses: Counter, faults: list[str]
) -> None:
    """Send from several connections; count each (kind, status) and list the faults."""
    waiting = iter(planned)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                kind, attack = next(waiting, (None, None))
            if kind is None:
                return
            try:
                response = requests.request(  # a new connection each time: any worker gets it
                    attack.method, url + attack.path, data=attack.body, timeout=30,
                    headers={"Content-Type": attack.content_type},
                )  # fmt: skip
                status, wrong = response.status_code, fault(attack, response)
            except (requests.RequestException, ValueError) as error:
                status, wrong = type(error).__name__, repr(error)
            with lock:
                statuses[kind, status] += 1
                if wrong:
                    faults.append(f"{kind}: {wrong}")

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Attack, print what came back; exit code 1 for any fault, lost answer or growth."""
    config = labkit.parse(Config, argv)
    if not sys.platform.startswith("linux"):
        fail("memory is read from /proc, which only Linux has")
    rng = random.Random(config.seed)
    images = labkit.load_mnist("sample")
    makers = attacks(images.x_test[0])
    kinds = list(makers)
    planned = [
        (kind, makers[kind](rng))
        for kind in kinds + rng.choices(kinds, k=config.requests - len(kinds))
    ]
    model = LAB / "model" / "mnist.tflite"
    image = images.x_test[0]
    label = int(Model(model).predict(np.float32(image.reshape(1, 784)) / 255).argmax())
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            ["env", f"PORT={port}", f"MODEL={model}", "LOG_REQUESTS=0",
             sys.executable, "-m", "tp1_mnist_api.serving.server"],
            cwd=ROOT, stdout=log, stderr=log,
        )  # fmt: skip
        good = GoodClient(url, image, label)
        try:
            wait_until_ready(url, is_alive=lambda: server.poll() is None)
            workers = workers_of(server)
            megabytes = [resident_megabytes(workers)]
            statuses, faults = Counter(), []
            good.start()
            for part in tqdm(range(10), desc="tenths"):
                send_all(url, planned[part::10], config.clients, statuses, faults)
                megabytes.append(resident_megabytes(workers))
            survived = workers_of(server) == workers
        finally:
            good.stopped.set()
            if good.is_alive():
                good.join()
            server.terminate()
            server.wait(timeout=40)

    for kind in kinds:
        found = {
            status: n for (name, status), n in sorted(statuses.items(), key=str) if name == kind
        }
        print(f"{kind:20} {found}")
    print(
        f"{statuses.total()} hostile requests, {len(faults)} faults {faults[:5]}\n"
        f"{len(good.seconds)} good ones meanwhile, {len(good.failures)} failed "
        f"{good.failures[:5]}, slowest {1000 * max(good.seconds):.0f} ms\n"
        f"resident memory of {len(workers)} workers in MB, at the start and after each tenth: "
        f"{', '.join(f'{value:.0f}' for value in megabytes)}"
    )
    before, after = megabytes[1], megabytes[-1]
    if faults or good.failures or not survived or after > (1 + config.growth) * before:
        raise SystemExit("FAILED" if survived else "FAILED: a worker died")
    return {
        "hostile_requests": float(statuses.total()),
        "good_requests": float(len(good.seconds)),
        "slowest_good_seconds": max(good.seconds),
        "megabytes_before": before,
        "megabytes_after": after,
    }


if __name__ == "__main__":
    main()
