"""The model in MLflow's format, with ONNX Runtime; MLflow checks the input by the type hint.

python tools/bench/api_peers/mlflow_model.py mnist.onnx TARGET_FOLDER
"""

import sys

import mlflow
import numpy as np
import onnxruntime
from pydantic import BaseModel, Field, field_validator


class Digit(BaseModel):
    """One input: 784 integers in 0..255."""

    image: list[int] = Field(min_length=784, max_length=784)

    @field_validator("image", mode="before")
    @classmethod
    def check(cls, image: object) -> object:
        """Refuse all but integers in 0..255; MLflow knows no annotated type such as `conint`."""
        if isinstance(image, list) and all(type(v) is int and 0 <= v <= 255 for v in image):
            return image
        raise ValueError("expected integers in 0..255")


class MnistModel(mlflow.pyfunc.PythonModel):
    """What `mlflow models serve` runs."""

    def load_context(self, context) -> None:
        """Load the model, once per worker."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the workers share the cores
        self.session = onnxruntime.InferenceSession(context.artifacts["onnx"], options)
        self.name = self.session.get_inputs()[0].name

    def predict(self, model_input: list[Digit]) -> list[dict]:
        """One answer per input."""
        answers = []
        for digit in model_input:
            image = np.array(digit.image, dtype=np.float32)[None] / 255
            probabilities = self.session.run(None, {self.name: image})[0]
            answers.append(
                {
                    "prediction": int(probabilities.argmax()),
                    "probabilities": probabilities.tolist(),
                }
            )
        return answers


mlflow.models.set_model(MnistModel())

if __name__ == "__main__":
    mlflow.pyfunc.save_model(
        sys.argv[2],
        python_model=__file__,
        artifacts={"onnx": sys.argv[1]},
        input_example=[Digit(image=[0] * 784)],
        pip_requirements=["mlflow", "onnxruntime"],
    )
