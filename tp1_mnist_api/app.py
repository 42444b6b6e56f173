"""Serve the exported MNIST model over HTTP, without TensorFlow.

    python tp1_mnist_api/app.py                  # http://127.0.0.1:5000, the champion
    python tp1_mnist_api/app.py --model outputs/.../mnist.tflite --port 8080

    curl -X POST http://127.0.0.1:5000/predict -H 'Content-Type: application/json' \\
         -d '{"image": [0, 0, ..., 0]}'          # 784 numbers in 0..255, white on black
    curl -X POST http://127.0.0.1:5000/predict -F image=@photo_of_a_digit.jpg

http://127.0.0.1:5000/ is a page to draw a digit on, /docs describes all routes. This is one process
for a laptop; the container runs the same app in several workers (serving/server.py).
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flask import Flask, Request, Response, request
from werkzeug.exceptions import HTTPException, UnsupportedMediaType
from werkzeug.routing import MapAdapter

from tp1_mnist_api.serving import observe, pictures, settings
from tp1_mnist_api.serving.bodies import (
    WANTED_JSON,
    received,
    too_large,
    uploaded_picture,
    whole_body,
)
from tp1_mnist_api.serving.development import JsonErrors
from tp1_mnist_api.serving.inputs import InputError, read_image, read_images
from tp1_mnist_api.serving.model_file import Model, ModelError, choice
from tp1_mnist_api.serving.views import views_of

to_json = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode
PAGES = Path(__file__).resolve().parent / "serving" / "pages"


@dataclass(frozen=True)
class Limits:
    """The longest bodies that are read; longer ones are answered 413."""

    json_bytes: int = settings.INTEGERS["LIMIT_JSON_BYTES"][0]
    picture_bytes: int = settings.INTEGERS["LIMIT_PICTURE_BYTES"][0]


def answer(content: dict, status: int = 200) -> Response:
    """`content` as JSON, byte for byte as Flask's `jsonify` writes it; one encoder serves all."""
    return Response(to_json(content) + "\n", status, content_type="application/json")


class Api(Flask):
    """Flask that routes by path and method alone: no route here depends on a host name."""

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """What finds the request's route; no host name is taken apart for it."""
        if request is None:
            return None
        return MapAdapter(
            self.url_map, "", request.root_path, "", request.scheme, request.path, request.method
        )


def is_true(name: str) -> bool:
    """The query's parameter `name`, true or false; raises `InputError` for another value."""
    value = request.args.get(name, "false")
    if value not in ("true", "false"):
        raise InputError(f"{name}: expected true or false, got {value!r}", "value")
    return value == "true"


def create_app(
    model: Model | None,
    limits: Limits = Limits(),
    log_requests: bool = False,
    is_draining: Callable[[], bool] = lambda: False,
) -> Flask:
    """The API around `model`. Usage: `create_app(Model(path)).test_client()`.

    Without a model every prediction is answered 503. `is_draining` tells that the server is about
    to stop, so that /ready can say so.
    """
    app = Api(__name__, static_folder=None)
    app.config.update(
        LIMITS=limits,
        IS_DRAINING=is_draining,
        MAX_CONTENT_LENGTH=limits.json_bytes,
        MAX_FORM_MEMORY_SIZE=limits.json_bytes,
    )

    @app.post("/predict")
    def predict() -> Response:
        if model is None:
            return answer({"error": "The model could not be loaded"}, 503)
        wants_seen = bool(request.query_string) and is_true("seen")
        if request.is_json:
            pixels, warnings = read_image(whole_body())
            probabilities = model.predict(pixels)
        else:
            pixels, warnings = pictures.read_picture(uploaded_picture(limits.picture_bytes))
            probabilities = model.predict(views_of(pixels)).mean(axis=0, keepdims=True)
        observe.count_predictions(pixels, probabilities)
        content = {
            "prediction": int(probabilities[0].argmax()),
            "probabilities": probabilities.tolist(),
        }
        if warnings:
            content["warnings"] = warnings
        if wants_seen:
            content["seen"] = (pixels * 255).round().astype(int).reshape(28, 28).tolist()
        return answer(content)

    @app.post("/predict/batch")
    def predict_batch() -> Response:
        if model is None:
            return answer({"error": "The model could not be loaded"}, 503)
        if not request.is_json:
            raise UnsupportedMediaType(f"{received()}; {WANTED_JSON}")
        pixels, warnings = read_images(whole_body())
        probabilities = model.predict(pixels)
        observe.count_predictions(pixels, probabilities)
        content = {
            "predictions": probabilities.argmax(axis=1).tolist(),
            "probabilities": probabilities.tolist(),
        }
        return answer(content | {"warnings": warnings} if warnings else content)

    @app.get("/health")
    def health() -> Response:
        """The process is alive."""
        status = "ok" if model else "no model"
        return answer({"model_loaded": model is not None, "status": status}, 200 if model else 503)

    @app.get("/ready")
    def ready() -> Response:
        """New requests are welcome."""
        is_ready = model is not None and not is_draining()
        return answer({"ready": is_ready}, 200 if is_ready else 503)

    @app.get("/model")
    def card() -> Response:
        if model is None:
            return answer({"error": "The model could not be loaded"}, 503)
        return answer(model.card)

    for path, file, content_type in (
        ("/", "draw.html", "text/html; charset=utf-8"),
        ("/docs", "docs.html", "text/html; charset=utf-8"),
        ("/openapi.json", "openapi.json", "application/json"),
    ):
        content = (PAGES / file).read_bytes()
        app.add_url_rule(
            path,
            endpoint=file,
            view_func=lambda content=content, content_type=content_type: Response(
                content, content_type=content_type, headers={"Cache-Control": "no-cache"}
            ),
        )

    @app.errorhandler(InputError)
    def refused(error: InputError) -> Response:
        observe.REFUSED.labels(error.reason).inc()
        return answer({"error": str(error)}, 400)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        """404, 405, 413 and the like as JSON; headers such as Allow are kept."""
        if error.code in (413, 415):
            observe.REFUSED.labels("too_large" if error.code == 413 else "media_type").inc()
        response = error.get_response()
        message = error.description
        if error.code == 413:
            message = too_large(request.max_content_length)
        elif error.code == 404:
            message = f"Nothing is at {request.path[:60]}; GET /docs lists the addresses"
        elif error.code == 405:
            useful = sorted({"GET", "POST"} & set(error.valid_methods or ()))
            message = f"{request.method} is not for {request.path}; use {' or '.join(useful)}"
        response.data = json.dumps({"error": message}) + "\n"
        response.content_type = "application/json"
        return response

    @app.errorhandler(Exception)
    def unforeseen(error: Exception) -> Response:
        observe.log_error(error)
        return answer({"error": "Internal error"}, 500)

    observe.watch(app, log_requests)
    return app


def port(text: str) -> int:
    """The argument --port; argparse shows the message of its error."""
    try:
        return settings.in_range("PORT", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
        type=port,
        help="TCP port, 1 to 65535 (default: $PORT or 5000)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        help="exported model, its card beside it (default: $MODEL, the champion or the shipped)",
    )
    arguments = parser.parse_args()
    settings.refuse_other_clone(__file__)
    number = arguments.port or settings.setting("PORT")
    path, reason = (arguments.model, "named by --model") if arguments.model else choice()
    try:
        model = Model(path)
    except ModelError as error:
        settings.stop(f"{error}\nTrain one with `make run`, or name one with --model.")
    settings.check_address(arguments.host, number)
    card = model.card
    print(
        f"Serving {path}, {reason}: {card.get('model')}, trained on {card.get('data_source')}, "
        f"test accuracy {card.get('test_accuracy')}"
    )
    create_app(model).run(arguments.host, number, request_handler=JsonErrors)


if __name__ == "__main__":
    main()
