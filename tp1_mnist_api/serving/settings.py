"""Settings from the environment, refused with one clear line before anything starts."""

import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

INTEGERS = {  # name: default, lowest, highest
    "PORT": (5000, 1, 65535),
    "WORKERS": (2, 1, 256),
    "LOG_REQUESTS": (1, 0, 1),
    "LIMIT_JSON_BYTES": (2**20, 8192, 2**30),
    "LIMIT_PICTURE_BYTES": (10 * 2**20, 8192, 2**30),
    "BODY_SECONDS": (10, 1, 600),
    "DRAIN_SECONDS": (1, 0, 600),
}
BODY = "mnist_api.body"
"""Where in the WSGI environment a server puts a body that it has read, beside `wsgi.input`."""


def stop(message: str, code: int = 2) -> NoReturn:
    """Leave with `message` on standard error; code 2 means a user's mistake."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


def refuse_other_clone(script: str) -> None:
    """Leave with exit code 2 where `script` lies in another checkout than the code it runs.

    So it is in a folder that was copied with its environment.
    """
    code, folder = Path(__file__).resolve().parents[2], Path(script).resolve().parents[1]
    if code != folder:
        stop(
            f"this is {folder}, but its environment runs the code of {code}: run `make setup` here"
        )


def in_range(name: str, text: str) -> int:
    """`text` as the integer setting `name`; raises `ValueError` that gives the allowed range."""
    _, lowest, highest = INTEGERS[name]
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not lowest <= value <= highest:
        raise ValueError(f"must be {lowest} to {highest}, got {text!r}")
    return value


def setting(name: str) -> int:
    """Integer `name` of the environment or its default; exits 2 where it is none or outside."""
    try:
        return in_range(name, os.environ.get(name, str(INTEGERS[name][0])))
    except ValueError as error:
        stop(f"{name} {error}")


def host() -> str:
    """The address HOST of the environment, 127.0.0.1 if not given; exits 2 for a name."""
    text = os.environ.get("HOST", "127.0.0.1")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        stop(f"HOST must be an IP address such as 127.0.0.1, 0.0.0.0 or ::, got {text!r}")


def check_address(address: str, port: int) -> None:
    """Leave with exit code 1 where `address`:`port` can't be listened on, as when it is taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        if os.name == "posix":  # elsewhere this option would share a taken port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            stop(f"can't listen on {address} port {port}: {error.strerror}. Choose another.", 1)
