"""The original's design: JSON, NumPy, `model.predict` and Flask's development server."""

import os

import keras
import numpy as np
from flask import Flask, jsonify, request

app = Flask(__name__)
model = keras.saving.load_model(os.path.join(os.environ["MODELS"], "mnist.keras"))


@app.post("/predict")
def predict():
    """No check at all, as there: what NumPy or Keras can't use becomes an answer 500."""
    image = np.array(request.get_json()["image"]).reshape(1, 784).astype("float32") / 255
    probabilities = model.predict(image, verbose=0)
    return jsonify(
        prediction=int(probabilities.argmax()),
        probabilities=probabilities.tolist(),
    )


if __name__ == "__main__":
    app.run("127.0.0.1", int(os.environ["PORT"]))
