"""Run the Flask app on granian's event loop: wait for bodies there, compute in Flask.

A request's body is awaited with a limit in bytes and in seconds, and only then given to Flask. So
slow clients cost no thread, and a short request runs on the loop itself without waiting for a
thread's turn. Pictures and long bodies, which take longer, go to a thread.

Protocol: RSGI 1.5, https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md, to
WSGI as in PEP 3333.
"""

import asyncio
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flask import Flask
from werkzeug.exceptions import RequestTimeout

from tp1_mnist_api.serving import settings

SHORT_BYTES = 32 * 1024


class _Late(io.RawIOBase):
    """The body of a client that stopped sending: Flask answers 408 when it reads."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        raise RequestTimeout("The body did not arrive in time")


class RsgiApp:
    """`flask_app` for granian's RSGI interface. Usage: `RsgiApp(create_app(model), 10)`."""

    def __init__(self, flask_app: Flask, body_seconds: float) -> None:
        """Bodies above the app's limit or slower than `body_seconds` are not read to their end."""
        self.flask_app = flask_app
        limits = flask_app.config["LIMITS"]
        self.limit_bytes = max(limits.json_bytes, limits.picture_bytes)
        self.is_draining = flask_app.config["IS_DRAINING"]
        self.body_seconds = body_seconds
        self.thread = ThreadPoolExecutor(1)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        if scope.proto != "http":
            return protocol.close(403)
        environ = {
            "REQUEST_METHOD": scope.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": scope.path.encode().decode("latin-1"),
            "QUERY_STRING": scope.query_string,
            "SERVER_NAME": "mnist-api",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
            "REMOTE_ADDR": scope.client,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scope.scheme,
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        for name, value in scope.headers.items():
            key = name.upper().replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = "HTTP_" + key
                if key in environ:  # a header may come several times: PEP 3333 wants one value
                    separator = "; " if key == "HTTP_COOKIE" else ","
                    value = f"{environ[key]}{separator}{value}"
            environ[key] = value
        length = await self._read_body(environ, protocol)
        if length > SHORT_BYTES or (length and "json" not in environ.get("CONTENT_TYPE", "")):
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self.thread, self._call, environ)
        else:
            answer = self._call(environ)
        return protocol.response_bytes(*answer)

    async def _read_body(self, environ: dict[str, Any], protocol: Any) -> int:
        """Put the body into `environ` and return its length; Flask refuses what is missing."""
        announced = environ.get("CONTENT_LENGTH", "0")
        if announced.isdecimal() and int(announced) > self.limit_bytes:
            environ["wsgi.input"] = io.BytesIO()  # refused by its header, never read
            return 0
        body = bytearray()
        try:
            async with asyncio.timeout(self.body_seconds):
                if "CONTENT_LENGTH" in environ:
                    body = await protocol()
                else:
                    async for part in protocol:
                        body += part
                        if len(body) > self.limit_bytes:
                            break
        except TimeoutError:
            environ["wsgi.input"] = _Late()
            return 0
        environ["CONTENT_LENGTH"] = str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)  # it is whole now
        environ["wsgi.input"] = io.BytesIO(body)
        environ[settings.BODY] = bytes(body)
        return len(body)

    def _call(self, environ: dict[str, Any]) -> tuple[int, list[tuple[str, str]], bytes]:
        """Flask's answer: status, headers with lower-case names, body."""
        answer: list[Any] = []

        def start_response(status: str, headers: list, exc_info: object = None) -> None:
            answer[:] = [int(status[:3]), [(name.lower(), value) for name, value in headers]]

        parts = self.flask_app(environ, start_response)
        try:
            content = b"".join(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()
        if self.is_draining():
            answer[1].append(("connection", "close"))
        return answer[0], answer[1], content
