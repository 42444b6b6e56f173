"""Plain Flask and LiteRT, the obvious way, for gunicorn's threads."""

import os
import threading

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from flask import Flask, abort, jsonify, request

path = os.path.join(os.environ["MODELS"], "mnist.tflite")
local = threading.local()
app = Flask(__name__)


def run(image: np.ndarray) -> np.ndarray:
    """Probabilities, (1, 10), by this thread's own interpreter."""
    if not hasattr(local, "interpreter"):
        local.interpreter = Interpreter(path, num_threads=1)
        local.interpreter.allocate_tensors()
    interpreter = local.interpreter
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@app.post("/predict")
def predict():
    """784 integers in 0..255, or 400."""
    content = request.get_json()
    image = content.get("image") if isinstance(content, dict) else None
    if not isinstance(image, list) or len(image) != 784:
        abort(400, "expected 784 values")
    if not all(type(value) is int and 0 <= value <= 255 for value in image):
        abort(400, "expected integers in 0..255")
    probabilities = run(np.array(image, dtype=np.float32)[None] / 255)
    return jsonify(
        prediction=int(probabilities.argmax()),
        probabilities=probabilities.tolist(),
    )
