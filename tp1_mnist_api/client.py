"""Ask a running API which digit a picture shows.

    python tp1_mnist_api/client.py digit.png              # a picture file
    python tp1_mnist_api/client.py --test-image 0         # an image of MNIST's test set: a 7
    python tp1_mnist_api/client.py digit.png --url 127.0.0.1:8080

Exit codes: 0 answered; 2 wrong arguments or an input that the API refused; 3 no API there.
"""

import ipaddress
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import requests
import tyro
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

import labkit
from labkit.arguments import fail

MEDIA_TYPES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


@dataclass(frozen=True)
class Config:
    """What to ask."""

    picture: Annotated[Path | None, tyro.conf.Positional] = None
    """PNG, JPEG or WebP file of one digit."""
    test_image: int | None = None
    """Index of an MNIST test image, 0 to 9999, instead of a file."""
    url: str = "http://127.0.0.1:5000"
    """Where the API is."""
    timeout: float = 5.0
    """Seconds to wait for an answer."""
    retries: int = 3
    """Further tries while there is no answer or a 502, 503 or 504, after 0.5, 1, 2... seconds."""
    data: labkit.DataChoice = "auto"
    """Where test images come from. auto: real MNIST or, without it, a sample."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        if (self.picture is None) == (self.test_image is None):
            raise ValueError("give either a picture file or --test-image")
        if self.timeout <= 0:
            raise ValueError(f"--timeout must be above 0, got {self.timeout}")
        address(self.url)
        labkit.at_least(self, retries=0)


def address(url: str) -> str:
    """`url` with `http://` where it names no scheme, without a slash at its end.

    Raises `ValueError` where that is no address of an API.
    """
    whole = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        parts = urlsplit(whole)
        is_usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        is_usable = False
    if not is_usable:
        raise ValueError(f"--url must be like http://127.0.0.1:5000, got {url!r}")
    return whole


def is_this_machine(url: str) -> bool:
    """Whether `url` names the machine that asks, which no proxy can reach."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def session_for(url: str, retries: int = 0) -> requests.Session:
    """A session that tries again with growing pauses, and asks no proxy for this machine.

    Usage: `session_for(url, 3).get(url)`.
    """
    # A prediction changes nothing on the server, so that a POST may be repeated too.
    retry = Retry(
        retries, backoff_factor=0.5, status_forcelist=(502, 503, 504), allowed_methods=None,
        raise_on_status=False,
    )  # fmt: skip
    session = requests.Session()
    session.trust_env = not is_this_machine(url)  # the environment's http_proxy, for one
    session.mount("http://", HTTPAdapter(max_retries=retry))
    session.mount("https://", HTTPAdapter(max_retries=retry))
    return session


def wait_until_ready(
    url: str, seconds: float = 30, is_alive: Callable[[], bool] = lambda: True
) -> None:
    """Return once `url`/ready answers 200. Usage: `wait_until_ready("http://127.0.0.1:5000")`.

    Leaves with exit code 1 after `seconds`, or as soon as `is_alive` says that the server ended.
    """
    deadline = time.monotonic() + seconds
    with session_for(url) as session:
        while time.monotonic() < deadline and is_alive():
            try:
                if session.get(f"{url}/ready", timeout=1).ok:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.1)
    reason = f"within {seconds:.0f} s" if is_alive() else "before its process ended"
    raise SystemExit(f"error: {url}/ready did not answer 200 {reason}")


def request_body(config: Config) -> dict:
    """Arguments for `requests.post`: a picture file as it is, a test image as 784 numbers."""
    if config.picture:
        if config.picture.suffix.lower() not in MEDIA_TYPES:
            fail(f"{config.picture} must be one of {', '.join(MEDIA_TYPES)}")
        try:
            content = config.picture.read_bytes()
        except OSError as error:
            fail(f"can't read {config.picture}: {error.strerror}")
        media_type = f"image/{MEDIA_TYPES[config.picture.suffix.lower()]}"
        return {"data": content, "headers": {"Content-Type": media_type}}
    images = labkit.load_mnist(config.data).x_test
    if not 0 <= config.test_image < len(images):
        fail(f"--test-image must be 0 to {len(images) - 1}, got {config.test_image}")
    return {"json": {"image": images[config.test_image].ravel().tolist()}}


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Ask, print the answer and the time it took; return the probability of each digit."""
    config = labkit.parse(Config, argv)
    body = request_body(config)
    url = address(config.url)
    began = time.perf_counter()
    try:
        with session_for(url, config.retries) as session:
            response = session.post(f"{url}/predict", timeout=config.timeout, **body)
        answer = response.json()
    except (requests.RequestException, ValueError) as error:
        reason = type(error).__name__
        print(
            f"error: no API answers at {url} ({reason}). Start one: make serve",
            file=sys.stderr,
        )
        raise SystemExit(3) from None
    milliseconds = 1000 * (time.perf_counter() - began)
    if response.status_code != 200:
        fail(f"{response.status_code}: {answer.get('error', answer)}")
    probabilities = answer["probabilities"][0]
    print(f"Prediction: {answer['prediction']}  ({milliseconds:.1f} ms)")
    for digit in sorted(range(10), key=lambda digit: -probabilities[digit])[:3]:
        print(f"  {digit}: {probabilities[digit]:.4f}")
    for warning in answer.get("warnings", ()):
        print(f"Warning: {warning}")
    return {str(digit): value for digit, value in enumerate(probabilities)}


if __name__ == "__main__":
    main()
