"""What the scripts run on: seeds, precision, versions, and a description of the machine."""

import logging
import os
import platform
import socket
import subprocess
from collections.abc import Iterator
from functools import cache, wraps
from importlib import metadata
from pathlib import Path

from labkit.environment import ROOT


def prepare(seed: int, precision: str = "float32") -> None:
    """Seed Python, NumPy and Keras and set the precision. Usage: `labkit.prepare(config.seed)`.

    Call it before the model is built, and again before each model of a comparison: otherwise
    the second model depends on how much randomness the first one used. The same seed gives the
    same weights on one machine with one number of threads, not across machines.

    `precision` is a Keras dtype policy: `float32` or `mixed_bfloat16`.
    """
    logging.getLogger("tensorflow").addFilter(_is_no_advice_on_retracing)
    import keras

    _spare_fit_the_tuner()
    # Whatever ~/.keras/keras.json says: shapes, figures and saved models depend on these.
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    keras.mixed_precision.set_dtype_policy(precision)


@cache
def _spare_fit_the_tuner() -> None:
    """Keep TensorFlow's tuner of input pipelines out of `fit()`, `evaluate()` and `predict()`.

    Its thread sleeps 10 ms, then twice as long each time, and when a pipeline ends it often misses
    the call to stop: the end of an epoch then waits for the end of a sleep, up to as long as the
    epoch itself took. Keras has no setting for this. What comes out of a pipeline stays the same.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    iterate = tf.data.Dataset.__iter__

    @wraps(iterate)
    def iterate_untuned(dataset: tf.data.Dataset) -> Iterator:
        return iterate(dataset.with_options(options))

    tf.data.Dataset.__iter__ = iterate_untuned


def _is_no_advice_on_retracing(record: logging.LogRecord) -> bool:
    """False for TensorFlow's advice against many models in one process, which comparisons are."""
    return "retracing" not in str(record.msg)


def fast_precision() -> str:
    """The faster training precision of this machine. Usage: `labkit.prepare(0, fast_precision())`.

    `mixed_bfloat16` where the processor multiplies bfloat16 in hardware (1.0 to 1.6 times as
    fast as float32 there, many times slower elsewhere), `float32` on everything else.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:  # macOS, Windows
        return "float32"
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


@cache
def measure_speed() -> dict[str, str | float]:
    """How fast this machine is today: two seconds of one convolution. Usage: `measure_speed()`.

    `gflops` is the median of 10^9 multiplications and additions per second in the arithmetic
    `gflops_precision`, the machine's faster one. A shared machine may be half as fast tomorrow.
    From then on `describe()` tells it, in this process.
    """
    import time
    from statistics import median

    import tensorflow as tf

    precision = fast_precision()
    dtype = tf.bfloat16 if precision == "mixed_bfloat16" else tf.float32
    images = tf.cast(tf.random.stateless_uniform((64, 32, 32, 64), (0, 0)), dtype)
    kernel = tf.cast(tf.random.stateless_uniform((3, 3, 64, 64), (0, 1)), dtype)
    convolve = tf.function(lambda: tf.nn.conv2d(images, kernel, 1, "SAME"), jit_compile=False)
    convolve()  # builds the graph
    speeds, started = [], time.perf_counter()
    while (before := time.perf_counter()) < started + 2:
        convolve()
        seconds = time.perf_counter() - before
        speeds.append(2e-9 * 64 * 32 * 32 * kernel.shape.num_elements() / seconds)
    return {"gflops": round(median(speeds), 1), "gflops_precision": precision}


def describe() -> dict[str, str | int | float]:
    """Processor, cores, and today's speed once that is measured. Usage: `describe()["cpu"]`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    speed = measure_speed() if measure_speed.cache_info().currsize else {}
    return {"cpu": cpu, "cores": os.cpu_count() or 1, **speed}


def versions() -> dict[str, str]:
    """Versions that decide a training's figures. Usage: `versions()["keras"]`."""
    found = {"python": platform.python_version()}
    for name in ("tensorflow", "tensorflow-cpu", "keras", "numpy", "mlflow"):
        try:
            found[name.removesuffix("-cpu")] = metadata.version(name)
        except metadata.PackageNotFoundError:  # one of the two TensorFlow builds
            continue
    return found


def commit() -> str:
    """Short git commit, `-dirty` where tracked files differ, `unknown` outside our own checkout.

    Usage: `commit()`. Only files under `results/` may differ: runs write them, none runs them.
    """
    # GIT_DIR and its like name another repository, as inside a hook of that one.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        done = subprocess.run(command, env=own, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        if not os.path.samefile(git("rev-parse", "--show-toplevel"), ROOT):
            return "unknown"  # unpacked inside somebody's repository
        head = git("rev-parse", "--short", "HEAD")
        changes = git("diff", "--name-only", "HEAD", "--", ".", ":!results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changes else head


def home() -> Path:
    """Folder of the outputs and of the tracking store. Usage: `home() / "outputs"`.

    The repository's root, or `$LABKIT_HOME` where that is set.
    """
    return Path(os.path.expanduser(os.environ.get("LABKIT_HOME") or ROOT)).resolve()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on. Usage: `port = free_port()`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
