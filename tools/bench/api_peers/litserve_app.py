"""LitServe and ONNX Runtime; pydantic checks the input."""

import os
from typing import Annotated

import litserve
import numpy as np
import onnxruntime
from pydantic import BaseModel, Field

Pixel = Annotated[int, Field(ge=0, le=255, strict=True)]


class Digit(BaseModel):
    """The body: 784 integers in 0..255."""

    image: Annotated[list[Pixel], Field(min_length=784, max_length=784)]


class MnistAPI(litserve.LitAPI):
    """The four steps of a request, as LitServe names them."""

    def setup(self, device: str) -> None:
        """Load the model, once per worker."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the workers share the cores
        path = os.path.join(os.environ["MODELS"], "mnist.onnx")
        self.session = onnxruntime.InferenceSession(path, options)
        self.name = self.session.get_inputs()[0].name

    def decode_request(self, request: Digit) -> np.ndarray:
        """Pixels, (1, 784) in 0..1."""
        return np.array(request.image, dtype=np.float32)[None] / 255

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Probabilities, (1, 10)."""
        return self.session.run(None, {self.name: image})[0]

    def encode_response(self, probabilities: np.ndarray) -> dict:
        """The answer."""
        return {
            "prediction": int(probabilities.argmax()),
            "probabilities": probabilities.tolist(),
        }


if __name__ == "__main__":
    server = litserve.LitServer(MnistAPI(), accelerator="cpu", workers_per_device=2)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=2,
        generate_client_file=False,
    )
