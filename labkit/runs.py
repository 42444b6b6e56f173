"""Runs are started, resumed and found again: by their script, its code, settings and data."""

import dataclasses
import hashlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from labkit import machine, sources, tracking
from labkit.arguments import fail
from labkit.files import UNREADABLE
from labkit.run import Run

RUN_NAME = re.compile(r"[a-z0-9_.+]+-[a-z0-9_.+]+-[a-z0-9_.+]+(-s\d+)?")
"""`<architecture>-<optimizer>-<loss>[-s<seed>]`, the naming convention of every lab."""


@contextmanager
def start_run(
    script: str,
    config: Any,
    data_source: str,
    name: str,
    parent: str = "",
    part: str = "",
    experiment: str = "",
) -> Iterator[Run]:
    """Open a run of `script`, the caller's `__file__`, as a context.

    Usage: `with labkit.start_run(__file__, config, data.source, "dense-adam-mse-s0") as run:`.

    `name` follows `RUN_NAME`; `parent` is the MLflow run under which this one is shown. With
    `config.resume` the newest run of the same code, settings and data goes on where it was
    stopped, or comes back finished. Ctrl-C marks the run KILLED, keeps what is there and leaves
    with exit code 130; an error marks it FAILED. Raises `ValueError` for a name that breaks the
    convention.

    `part` names the many small runs of one comparison, such as `trial`: they print nothing, live in
    `outputs/<script>.<part>`, are tracked where their parent is, and hand Ctrl-C on to it.

    `experiment` is the tracking experiment where a hand-out fixes its name; else the lab's folder.
    """
    if not RUN_NAME.fullmatch(name):
        raise ValueError(f"run name {name!r} is not <architecture>-<optimizer>-<loss>[-s<seed>]")
    say = (lambda text: None) if part else print
    run, held = _find_or_make(Path(script), config, data_source, name, part, say)
    with held:
        if run.is_finished:
            run.write_state()  # makes it the latest one
            say(f"Nothing left to do: this run is finished in {run.folder}.")
            yield run
            return
        if parent or not part:
            run.begin(parent, experiment or run.state["script"].split(".")[0])
        where = f", resumed after epoch {run.first_epoch}" if run.first_epoch else ""
        say(f"Run {name} on {data_source} data{where}: {run.folder}")
        try:
            yield run
        except KeyboardInterrupt:
            run.finish("KILLED")
            if part:
                raise
            print(f"\nInterrupted: partial results are kept in {run.folder}.", file=sys.stderr)
            print("The same command with --resume goes on from there.", file=sys.stderr)
            raise SystemExit(130) from None
        except BaseException:
            run.finish("FAILED")
            raise
        run.finish("FINISHED")
        say(f"Finished in {run.seconds:.0f} s. Results: {run.folder}")
        if run.mirror.active:
            say(f"Compare runs: {tracking.page(run.state['experiment_id'])}")


@contextmanager
def examination(script: str, config: Any, trained: Run, data_source: str) -> Iterator[Run]:
    """Open the run of an examination of `trained`, shown below it, as a context.

    Usage: `with labkit.examination(__file__, config, trained, data.source) as run:`. Says so when
    the data are not those of the training.
    """
    if data_source != trained.data_source:
        print(f"note: trained on {trained.data_source}, examined on {data_source}")
    name, parent = trained.state["name"], trained.state["run_id"] or ""
    with start_run(script, config, data_source, name, parent) as run:
        yield run


def find_run(script: str | tuple[str, ...], identifier: str = "latest") -> Run:
    """A finished run of a script. Usage: `find_run("tp1_mnist_api.train_model", config.run)`.

    `script` is a dotted name, or several. `identifier` is `latest` (the last one trained or
    resumed), the beginning of an MLflow run id, or a folder's name. When there is none it prints
    what to do and leaves with exit code 2.
    """
    scripts = (script,) if isinstance(script, str) else script
    for folder, state in _runs(*scripts):
        named = folder.name == identifier or str(state.get("run_id") or "-").startswith(identifier)
        if state["status"] == "FINISHED" and (identifier == "latest" or named):
            return Run(folder, state)
    wanted = "finished run" if identifier == "latest" else f"finished run {identifier!r}"
    commands = " or ".join(f"python {name.replace('.', '/')}.py" for name in scripts)
    fail(f"no {wanted} of {' or '.join(scripts)} in {_outputs()}: run {commands} first")


def _outputs() -> Path:
    return machine.home() / "outputs"


def _runs(*scripts: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders and states of the scripts' runs, the last one trained or resumed first.

    A file's own time would not do: copying or unpacking a folder changes it.
    """
    found = []
    for path in (path for script in scripts for path in (_outputs() / script).glob("*/state.json")):
        try:
            state = json.loads(path.read_text())
            state["status"], state["fingerprint"]  # what each state has
            found.append((state.get("written", path.stat().st_mtime), path.parent, state))
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"warning: {path} is damaged and skipped ({error!r})", file=sys.stderr)
    for _, folder, state in sorted(found, key=lambda entry: entry[0], reverse=True):
        yield folder, state


def _find_or_make(
    path: Path, config: Any, source: str, name: str, part: str, say: Callable[[str], None]
) -> tuple[Run, AbstractContextManager[Any]]:
    """The run to go on with, or a new one, and its lock, taken until the context ends."""
    script = ".".join(filter(None, (sources.script_name(path), part)))
    settings = dataclasses.asdict(config)
    resume = settings.pop("resume", False)
    identity = json.dumps([settings, source, sources.code_of(path)], sort_keys=True, default=str)
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()
    if resume:
        for folder, state in _runs(script):
            if state["fingerprint"] != fingerprint:
                continue
            lock = FileLock(folder / "lock")
            try:
                held = lock.acquire(timeout=0)
            except Timeout:  # another process is at it
                continue
            try:
                return Run(folder, state), held
            except UNREADABLE as error:
                lock.release()
                print(f"warning: {folder} is damaged and skipped ({error})", file=sys.stderr)
        say("Nothing to resume for this script, these settings and this data: starting anew.")
    folder = _make_folder(_outputs() / script, name)
    held = FileLock(folder / "lock").acquire()
    run = Run(
        folder,
        {
            "script": script,
            "name": name,
            "status": "RUNNING",
            "fingerprint": fingerprint,
            "config": json.loads(json.dumps(settings, default=str)),
            "data_source": source,
            "commit": machine.commit(),
            "versions": machine.versions(),
            "machine": machine.describe(),
            "run_id": None,
            "metrics": {},
            "history": {},
        },
    )
    run.write_state()
    return run, held


def _make_folder(parent: Path, name: str) -> Path:
    """A new folder below `parent`; exit code 2 where there can't be one."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        prefix = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-"
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        folder.chmod(0o755)
    except OSError as error:
        fail(f"{parent} can't be written ({error.strerror}): LABKIT_HOME can name another folder")
    return folder
