"""What a user's own settings would change, settled when `labkit` is imported.

Keras runs on TensorFlow whatever `KERAS_BACKEND` or `keras.json` say, and Ctrl-C during the slow
imports ends with exit code 130 and no traceback, as it does later.
"""

import os
import sys
from pathlib import Path
from types import ModuleType, TracebackType

ROOT = Path(__file__).resolve().parents[1]
"""The repository's root: outputs, the tracking store and the results live below it."""


def use_tensorflow() -> None:
    """Make TensorFlow Keras' backend, and a quiet one. Usage: at the first import of labkit.

    Leaves with exit code 2 where Keras is imported already, on another backend.
    """
    wanted = os.environ.get("KERAS_BACKEND", "tensorflow")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # Start-up notices of TensorFlow's C++ side; errors still show.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    keras = sys.modules.get("keras")
    if keras is not None and keras.backend.backend() != "tensorflow":
        print("error: Keras runs on another backend: import labkit before keras", file=sys.stderr)
        raise SystemExit(2)
    if wanted != "tensorflow":
        print(f"note: KERAS_BACKEND={wanted}: these labs run on TensorFlow", file=sys.stderr)


def end_quietly(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """What shows an error that nothing caught; of Ctrl-C one line. Usage: as `sys.excepthook`.

    Raises `SystemExit` with code 130 for Ctrl-C.
    """
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    print("\nInterrupted.", file=sys.stderr)
    raise SystemExit(130)


def other_clone(script: ModuleType | None) -> Path | None:
    """The checkout of `script`, if that is not the one whose labkit runs; else None.

    Usage: `if clone := other_clone(script)`. A folder that was copied with its environment runs the
    code of the folder that it was copied from.
    """
    file = getattr(script, "__file__", None)
    for folder in Path(file).resolve().parents if file else ():
        if (folder / "labkit" / "__init__.py").exists():
            return None if folder == ROOT else folder
    return None


use_tensorflow()
if sys.excepthook is sys.__excepthook__:  # a debugger's or a notebook's stays
    sys.excepthook = end_quietly
