"""The exported model and its card."""

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

LAB = Path(__file__).resolve().parents[1]


class ModelError(Exception):
    """The model file can't be served; the message names it and says why."""


class Model:
    """An exported classifier. Usage: `Model(Path("mnist.tflite")).predict(pixels)`."""

    def __init__(self, path: Path) -> None:
        """Load `path` and the card beside it (same name, `.json`).

        Raises `ModelError` for a missing or damaged file, or one that its card doesn't describe.
        """
        try:
            self.content = path.read_bytes()
            self.card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            expected = self.card["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"model {path}: can't read it or its .json card: {error}") from error
        found = hashlib.sha256(self.content).hexdigest()
        if found != expected:
            raise ModelError(f"model {path}: SHA-256 is {found[:8]}, its card says {expected[:8]}")
        self._threads = threading.local()
        total = self.predict(np.zeros((1, 784), np.float32)).sum()  # refused now, not at a request
        if not abs(total - 1) < 1e-3:
            raise ModelError(f"model {path}: its ten outputs add up to {total}, not to 1")

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities, (n, 10) float32, of `pixels`, (n, 784) float32 in 0..1.

        May be called from several threads: each has an interpreter of its own, as one interpreter
        must not be used by two. Images go through one by one, which gives an image the same answer
        in any batch.
        """
        run = getattr(self._threads, "run", None) or self._open()
        if len(pixels) == 1:
            return run(pixels)
        return np.concatenate([run(image[None]) for image in pixels])

    def _open(self) -> Callable[[np.ndarray], np.ndarray]:
        """An interpreter for this thread, as a function from (1, 784) to (1, 10).

        Raises `ModelError` for a file that is no LiteRT model.
        """
        try:
            interpreter = Interpreter(model_content=self.content, num_threads=1)
            interpreter.allocate_tensors()
            source = interpreter.get_input_details()[0]["index"]
            target = interpreter.get_output_details()[0]["index"]
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"the model file is not a LiteRT model: {error}") from error

        def run(image: np.ndarray) -> np.ndarray:
            interpreter.set_tensor(source, image)
            interpreter.invoke()
            return interpreter.get_tensor(target)

        self._threads.run = run
        return run


def choice() -> tuple[Path, str]:
    """The model to serve and why it is this one.

    `MODEL` in the environment names it. Else it is this machine's champion, unless that was
    trained on the sample: 1,437 digits don't outrank the 54,000 real ones of the model that comes
    with the code.
    """
    if named := os.environ.get("MODEL"):
        return Path(named), "named by MODEL"
    home = Path(os.environ.get("LABKIT_HOME", LAB.parent)).expanduser()
    champion, shipped = (
        home / "outputs" / "champion" / "mnist.tflite",
        LAB / "model" / "mnist.tflite",
    )
    if not champion.exists():
        return shipped, "which comes with the code, as no model was trained here yet"
    if not saw_real_data(champion) and saw_real_data(shipped):
        return shipped, (
            "which comes with the code and was trained on real data: "
            f"the champion {champion} was trained on the sample only"
        )
    return champion, "the champion among the models trained here"


def default_model() -> Path:
    """The model that is served where none is named, see `choice`."""
    return choice()[0]


def saw_real_data(model: Path) -> bool:
    """Whether the card beside `model` doesn't say that it was trained on the sample.

    A card that can't be read says nothing; `Model` refuses it with a message.
    """
    try:
        card = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))
        return not str(card["data_source"]).startswith("sample")
    except (OSError, ValueError, KeyError, TypeError):
        return True
