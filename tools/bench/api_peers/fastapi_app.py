"""FastAPI and ONNX Runtime; pydantic checks the input."""

import os
from typing import Annotated

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel, Field

Pixel = Annotated[int, Field(ge=0, le=255, strict=True)]


class Digit(BaseModel):
    """The body: 784 integers in 0..255."""

    image: Annotated[list[Pixel], Field(min_length=784, max_length=784)]


class Answer(BaseModel):
    """The answer, which pydantic writes as JSON."""

    prediction: int
    probabilities: list[list[float]]


options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1  # the workers share the cores
session = onnxruntime.InferenceSession(os.path.join(os.environ["MODELS"], "mnist.onnx"), options)
name = session.get_inputs()[0].name
app = FastAPI()


@app.post("/predict")
async def predict(digit: Digit) -> Answer:
    """On the event loop: a thread would cost more than the prediction."""
    image = np.array(digit.image, dtype=np.float32)[None] / 255
    probabilities = session.run(None, {name: image})[0]
    return Answer(prediction=probabilities.argmax(), probabilities=probabilities.tolist())
