"""Serve the exported MNIST model over HTTP, without TensorFlow.

    python tp1_mnist_api/app.py                  # http://127.0.0.1:5000, the champion
    python tp1_mnist_api/app.py --model outputs/.../mnist.tflite --port 8080

    curl -X POST http://127.0.0.1:5000/predict -H 'Content-Type: application/json' \\
         -d '{"image": [0, 0, ..., 0]}'          # 784 numbers in 0..255, white on black

Routes: POST /predict, GET /health, GET /model. README.md describes the contract.
"""

import argparse
import hashlib
import json
import math
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from flask import Flask, Response, current_app, jsonify, request
from werkzeug.exceptions import HTTPException

LIMIT_BYTES = 1024 * 1024


class ModelError(Exception):
    """The model file can't be served; the message names it and says why."""


class InputError(Exception):
    """The request's image can't be used; the message is for the client."""


class Model:
    """An exported classifier. Usage: `Model(Path("mnist.tflite")).predict(pixels)`."""

    def __init__(self, path: Path) -> None:
        """Load `path` and the card beside it (same name, `.json`).

        Raises `ModelError` for a missing or damaged file, or one that its card doesn't describe.
        """
        try:
            self.content = path.read_bytes()
            self.card = json.loads(path.with_suffix(".json").read_text())
            expected = self.card["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"model {path}: can't read it or its .json card: {error}") from error
        found = hashlib.sha256(self.content).hexdigest()
        if found != expected:
            raise ModelError(f"model {path}: SHA-256 is {found[:8]}, its card says {expected[:8]}")
        self._threads = threading.local()
        self.predict(np.zeros(784, np.float32))  # a file that can't run is refused now, not later

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Ten probabilities, (10,) float32, of `pixels`, (784,) float32 in 0..1."""
        if not hasattr(self._threads, "interpreter"):  # one interpreter is not for two threads
            try:
                interpreter = Interpreter(model_content=self.content, num_threads=1)
                interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise ModelError(f"the model file is not a LiteRT model: {error}") from error
            self._threads.interpreter = interpreter
        interpreter = self._threads.interpreter
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels[None])
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


def read_pixels(image: Any) -> np.ndarray:
    """The JSON value `image` as (784,) float32 in 0..1.

    Allowed are 784 numbers, 28 rows of 28, or those with one axis of length 1 in front or, for
    rows, behind. Raises `InputError` for anything else.
    """
    values = image
    if isinstance(values, list) and len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if isinstance(values, list) and values and all(isinstance(row, list) for row in values):
        if len(values) != 28 or any(len(row) != 28 for row in values):
            raise InputError("image: expected 784 values or 28 rows of 28, got other lists")
        values = [value for row in values for value in row]
        if all(isinstance(value, list) and len(value) == 1 for value in values):
            values = [value[0] for value in values]
    if not isinstance(values, list):
        raise InputError(f"image: expected a list of 784 numbers, got {type(image).__name__}")
    if len(values) != 784:
        raise InputError(f"image: expected one image of 784 values, got {len(values)}")
    for position, value in enumerate(values):
        if type(value) not in (int, float):  # a bool is an int for isinstance
            kind = type(value).__name__
            raise InputError(f"image: value {position} is not a number but {kind}")
        if not (0 <= value <= 255):  # false for NaN too
            shown = repr(value) if isinstance(value, float) else "an integer"
            raise InputError(f"image: value {position} is outside 0..255: {shown}")
    largest = max(values)
    if 0 < largest <= 1:
        raise InputError(f"image: largest value is {largest}; send 0..255, not divided by 255")
    return np.array(values, dtype=np.float32) / 255


def default_model() -> Path:
    """This machine's champion or, before there is one, the model that comes with the code."""
    lab = Path(__file__).resolve().parent
    home = Path(os.environ.get("LABKIT_HOME", lab.parent)).expanduser()
    champion = home / "outputs" / "champion" / "mnist.tflite"
    return champion if champion.exists() else lab / "model" / "mnist.tflite"


def create_app(model: Model | None) -> Flask:
    """The API around `model`. Usage: `create_app(Model(path)).test_client()`."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LIMIT_BYTES
    app.config["MODEL"] = model

    @app.post("/predict")
    def predict() -> tuple[Response, int] | Response:
        model = current_app.config["MODEL"]
        if model is None:
            return jsonify(error="The model could not be loaded"), 503
        if not request.is_json:
            return jsonify(error="Send JSON: Content-Type: application/json"), 415
        try:
            body = json.loads(request.get_data())
        except (ValueError, RecursionError):
            return jsonify(error="The body is not valid JSON"), 400
        if not isinstance(body, dict | list):
            return jsonify(error='The body must be an object: {"image": [...]}'), 400
        if "image" not in body or isinstance(body, list):
            return jsonify(error="No image provided"), 400
        try:
            pixels = read_pixels(body["image"])
        except InputError as error:
            return jsonify(error=str(error)), 400
        probabilities = model.predict(pixels)
        if not math.isclose(float(probabilities.sum()), 1, abs_tol=1e-3):
            raise ModelError("the model's probabilities don't add up to 1")
        return jsonify(
            prediction=int(probabilities.argmax()), probabilities=[probabilities.tolist()]
        )

    @app.get("/health")
    def health() -> tuple[Response, int]:
        loaded = current_app.config["MODEL"] is not None
        status = "ok" if loaded else "no model"
        return jsonify(model_loaded=loaded, status=status), 200 if loaded else 503

    @app.get("/model")
    def card() -> tuple[Response, int] | Response:
        model = current_app.config["MODEL"]
        return (
            jsonify(model.card) if model else (jsonify(error="The model could not be loaded"), 503)
        )

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        """404, 405, 413 and the like as JSON; headers such as Allow are kept."""
        response = error.get_response()
        response.data = json.dumps({"error": error.description})
        response.content_type = "application/json"
        return response

    @app.errorhandler(Exception)
    def unforeseen(error: Exception) -> tuple[Response, int]:
        current_app.logger.exception("unforeseen error", exc_info=error)
        return jsonify(error="Internal error"), 500

    return app


def create_default_app() -> Flask:
    """The API around the default model, for WSGI servers: `gunicorn 'app:create_default_app()'`."""
    return create_app(Model(default_model()))


def main() -> None:
    """Read the arguments, load the model, serve until Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get("PORT", "5000"),
        help="TCP port, 1 to 65535 (default: $PORT or 5000)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=default_model(),
        help="exported model, its card beside it (default: the champion)",
    )
    arguments = parser.parse_args()
    if not 1 <= arguments.port <= 65535:
        parser.error(f"--port must be 1 to 65535, got {arguments.port}")
    try:
        model = Model(arguments.model)
    except ModelError as error:
        print(
            f"error: {error}\nTrain one with `make run`, or name one with --model.", file=sys.stderr
        )
        raise SystemExit(2) from None
    card = model.card
    print(
        f"Serving {arguments.model}: {card.get('model')}, trained on {card.get('data_source')}, "
        f"test accuracy {card.get('test_accuracy')}"
    )
    create_app(model).run(arguments.host, arguments.port)


if __name__ == "__main__":
    main()
