"""Many trainings from one function: in turn, or side by side and over machines on Ray Tune."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from tqdm import tqdm

from labkit.arguments import fail
from labkit.machine import home

THREADS = 2
"""Threads of one training, wherever it runs: another number would give other last digits."""
FORWARDED = ("LABKIT_HOME", "LABKIT_DATA", "KERAS_HOME", "MLFLOW_TRACKING_URI")
"""Settings of the environment that Ray's workers get as well."""

Trial = TypeVar("Trial")
Result = TypeVar("Result")


def fan_out(
    function: Callable[[Trial], Result],
    trials: Sequence[Trial],
    ray_address: str = "auto",
    label: str = "trials",
) -> list[Result]:
    """`[function(trial) for trial in trials]`, with a progress bar, on Ray Tune where it helps.

    Usage: `results = fan_out(train, [Trial(seed=0), Trial(seed=1)], config.ray_address)`.

    `ray_address` is `off` for a plain loop, `local` for Ray on this machine, a cluster's address,
    or `auto`: `local` if Ray is installed and two trainings fit side by side, else `off`. The
    results are the same: a training depends on its trial alone and has `THREADS` threads
    everywhere. `function` and the results must be picklable; on a cluster the machines share
    `LABKIT_HOME` or a tracking server. An error in one training is raised here.
    """
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(THREADS))  # read when TensorFlow starts
    installed = importlib.util.find_spec("ray") is not None
    if ray_address == "auto":
        side_by_side = min(len(trials), (os.cpu_count() or 1) // THREADS)
        ray_address = "local" if installed and side_by_side > 1 else "off"
    if ray_address == "off":
        return [function(trial) for trial in tqdm(trials, desc=label, unit="run")]
    if not installed:
        fail(f"--ray-address {ray_address} needs Ray: pip install -e '.[ray]'")
    return _on_ray(function, trials, ray_address, label)


def _on_ray(
    function: Callable[[Trial], Result], trials: Sequence[Trial], address: str, label: str
) -> list[Result]:
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    import ray
    from ray import tune

    environment = {name: os.environ[name] for name in FORWARDED if name in os.environ}
    environment["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTRAOP_THREADS"]

    def train(choice: dict[str, int]) -> None:
        tune.report({"result": function(trials[choice["index"]])})

    class Progress(tune.Callback):
        """Moves the bar when a training ends."""

        def on_trial_complete(self, *arguments: object, **named: object) -> None:
            bar.update()

    started_here = not ray.is_initialized()
    if started_here:
        ray.init(
            address=None if address == "local" else address,
            include_dashboard=False if address == "local" else None,
            runtime_env={"env_vars": environment},
            log_to_driver=False,
            logging_level="error",
        )
    try:
        with tqdm(total=len(trials), desc=label, unit="run") as bar:
            grid = tune.Tuner(
                tune.with_resources(train, {"cpu": THREADS}),
                param_space={"index": tune.grid_search(list(range(len(trials))))},
                tune_config=tune.TuneConfig(reuse_actors=True),
                run_config=tune.RunConfig(
                    verbose=0, callbacks=[Progress()], storage_path=str(home() / "outputs" / "ray")
                ),
            ).fit()
    finally:
        if started_here:
            ray.shutdown()
    for error in grid.errors:
        raise error
    ended = [result for result in grid if "result" in (result.metrics or {})]
    results = {result.config["index"]: result.metrics["result"] for result in ended}
    if len(results) < len(trials):  # Ray Tune ends quietly at Ctrl-C
        raise KeyboardInterrupt
    return [results[index] for index in range(len(trials))]
