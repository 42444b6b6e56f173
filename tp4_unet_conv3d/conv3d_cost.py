"""What a training step of a Conv3D costs: memory and time against kernel, filters and depth.

Each setting is measured in a process of its own, because the peak of a process' memory never falls.
Reported is how far the peak rises above that of a process that has trained a tiny network already.
"""

import multiprocessing
import re
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np

import labkit
from labkit import figures
from labkit.results import markdown_table

BATCH_SIZE = 8
"""Volumes in a measured step."""


@dataclass(frozen=True)
class Setting:
    """A network whose training step is measured; the defaults are the hand-out's network."""

    model: str = "conv3d"
    kernel: int = 3
    """Edge of the kernels in voxels."""
    filters: int = 16
    """Filters of the first convolution; the second has twice as many."""
    depth: int = 32
    """Slices of a volume of 32 x 32 voxels each."""


SWEEPS = {
    "kernel": [Setting(kernel=kernel) for kernel in (1, 3, 5, 7)],
    "filters": [Setting(filters=filters) for filters in (8, 16, 32, 64)],
    "depth": [Setting(depth=depth) for depth in (8, 16, 32, 64)],
}
FACTORISED = Setting(model="conv2plus1d")


SETTINGS = list(dict.fromkeys([*chain(*SWEEPS.values()), FACTORISED]))
"""Those of all sweeps, each once, and the factorised network."""


def measure(setting: Setting, repeats: int = 7) -> dict[str, float]:
    """Parameters, memory and time of a training step, measured in this process.

    Returns `parameters`; `activation_mb`, computed, all layers' outputs for a batch of 8;
    `peak_mb`, how far the process' peak memory rose (1 MB = 2^20 bytes; absent on Windows); and
    `step_ms`, the median time of `repeats` steps with Adam, after two that are not counted.
    """
    labkit.prepare(0)
    from tp4_unet_conv3d import conv3d_models

    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (BATCH_SIZE, 1)).astype("float32")

    def train(model: conv3d_models.keras.Model, steps: int) -> list[float]:
        x = rng.random((BATCH_SIZE, *model.input_shape[1:]), dtype="float32")
        model.compile("adam", "binary_crossentropy", jit_compile=False)
        seconds = []
        for _ in range(steps):
            started = time.perf_counter()
            model.train_on_batch(x, y)
            seconds.append(time.perf_counter() - started)
        return seconds

    train(conv3d_models.build_conv3d((8, 8, 8), filters_start=2), steps=1)
    before = _peak_memory()
    options = {"kernel": setting.kernel} if setting.model == "conv3d" else {}
    builder = conv3d_models.BUILDERS[setting.model]
    model = builder((setting.depth, 32, 32), setting.filters, **options)
    seconds = train(model, repeats + 2)[2:]
    found = {
        "parameters": model.count_params(),
        "activation_mb": BATCH_SIZE * conv3d_models.activation_bytes(model) / 2**20,
        "step_ms": 1000 * float(np.median(seconds)),
    }
    if before is not None:
        found["peak_mb"] = (_peak_memory() - before) / 2**20
    return found


def _peak_memory() -> int | None:
    """Most memory that this process has had, in bytes; None where the system doesn't say."""
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
    except OSError:  # not Linux, whose getrusage includes the memory of the parent process
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def measure_apart(setting: Setting, repeats: int = 7) -> dict[str, float]:
    """`measure` in a new process, which begins with an empty memory; raises what it raises."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, setting, repeats).result()


def cost_table(rows: list[dict]) -> str:
    """The rows as a Markdown table."""
    header = [
        "network", "kernel", "filters", "depth", "parameters",
        f"outputs MB, batch of {BATCH_SIZE}", "measured peak MB", "ms per step",
    ]  # fmt: skip
    lines = [
        [
            row["model"], *(str(row[name]) for name in SWEEPS), f"{row['parameters']:,}",
            f"{row['activation_mb']:.1f}", f"{row['peak_mb']:.0f}" if "peak_mb" in row else "",
            f"{row['step_ms']:.0f}",
        ]
        for row in rows
    ]  # fmt: skip
    return markdown_table(header, lines)


def cost_figure(rows: list[dict]) -> figures.Figure:
    """Memory (top) and time (bottom) against each of the three dimensions."""
    from matplotlib.ticker import LogLocator, NullFormatter

    drawn, axes = figures.subplots(2, 3, size=(12, 6.6))
    for row in axes:
        for axis in row[1:]:
            axis.sharey(row[0])
    base = asdict(Setting())
    labels = {
        "kernel": "edge of the kernels (voxels)",
        "filters": "filters of the first convolution",
        "depth": "depth (slices)",
    }
    factorised = next((row for row in rows if row["model"] == FACTORISED.model), None)
    for (memory, duration), (name, label) in zip(axes.T, labels.items(), strict=True):
        of_sweep = (row for row in rows if row == row | base | {name: row[name]})
        sweep = sorted(of_sweep, key=lambda row: row[name])
        x = [row[name] for row in sweep]
        if all("peak_mb" in row for row in sweep):
            memory.plot(x, [row["peak_mb"] for row in sweep], "o-", label="measured peak")
        outputs = [row["activation_mb"] for row in sweep]
        memory.plot(x, outputs, "s--", label="layers' outputs, computed")
        weights = [16 * row["parameters"] / 2**20 for row in sweep]
        memory.plot(x, weights, "^:", label="weights, gradients, Adam, computed")
        duration.plot(x, [row["step_ms"] for row in sweep], "o-", label="3-D convolutions")
        if factorised and name == "kernel":
            at = factorised["kernel"]
            if "peak_mb" in factorised:
                memory.plot(at, factorised["peak_mb"], "D", color="C3", label="(2+1)D, measured")
            duration.plot(at, factorised["step_ms"], "D", color="C3", label="(2+1)D")
        memory.set(title=f"Memory against {name}", ylabel=f"MB, batch of {BATCH_SIZE}")
        duration.set(title=f"Time against {name}", ylabel="ms for a training step", xlabel=label)
        for axis in (memory, duration):
            axis.set(yscale="log", xticks=x)
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
            if name != "kernel":
                axis.set_xscale("log", base=2)
                axis.set_xticks(x, labels=map(str, x))
            axis.axvline(base[name], color="0.85", zorder=0)
    axes[0, 0].legend(fontsize=8)
    axes[1, 0].legend(fontsize=8)
    return drawn
