"""The user's own settings: other clones, Keras' and Matplotlib's files, bad folders, Ctrl-C."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import keras
import matplotlib
import pytest

import labkit
from labkit import figures, files, machine
from tests.conftest import ROOT
from tests.test_tracking import one_run

# --- Clones and commits --------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["train_model.py", "app.py"])
def test_a_copied_folder_with_its_environment_is_refused(tmp_path, python, script):
    clone = tmp_path / "copy"
    for folder in ("labkit", "tp1_mnist_api"):
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("model"))
    done = python(str(clone / "tp1_mnist_api" / script))
    assert done.returncode == 2
    assert str(clone) in done.stderr
    assert str(ROOT) in done.stderr
    assert "`make setup`" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def setup_commands(folder: Path) -> str:
    """What `make setup` would do in `folder`."""
    done = subprocess.run(
        ["make", "--dry-run", "setup"], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_make_builds_a_moved_environment_anew(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, first)
    marker = first / ".venv" / ".installed"
    marker.parent.mkdir()
    time.sleep(0.01)
    marker.write_text(f"{first}\n")
    assert "venv" not in setup_commands(first)
    shutil.copytree(first, second)
    assert "--clear" in setup_commands(second)
    assert marker.exists()  # the first one's is as it was
    (second / ".venv" / ".installed").write_text("")  # as it was before it held a name
    assert "--clear" not in (commands := setup_commands(second))
    assert "-m venv" in commands


def git(folder: Path, *arguments: str) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_commit_is_never_another_repositorys(tmp_path, monkeypatch):
    other, ours = tmp_path / "other", tmp_path / "other" / "labs"
    ours.mkdir(parents=True)
    git(other, "init")
    git(other, "commit", "--allow-empty", "--message", "theirs")
    monkeypatch.setattr(machine, "ROOT", ours)
    assert machine.commit() == "unknown"
    git(ours, "init")
    (ours / "script.py").write_text("1")
    git(ours, "add", ".")
    git(ours, "commit", "--message", "ours")
    own = machine.commit()
    assert own not in ("unknown", "")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert machine.commit() == own


# --- Keras, Matplotlib, notebooks, Ctrl-C --------------------------------------------------------


def test_keras_settings_of_the_user_change_nothing(tmp_path, python):
    settings = {
        "backend": "torch", "image_data_format": "channels_first", "floatx": "float16",
        "epsilon": 0.1,
    }  # fmt: skip
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    code = (
        "import labkit; labkit.prepare(0); import keras; x = keras.Input((28, 28, 1));"
        "y = keras.layers.Conv2D(4, 3)(x);"
        "print(keras.backend.backend(), y.shape, y.dtype, keras.config.epsilon())"
    )
    environment = os.environ | {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "nowhere"}
    done = python("-c", code, env=environment)
    assert done.stdout.strip() == "tensorflow (None, 26, 26, 4) float32 1e-07", done.stderr
    assert "note: KERAS_BACKEND=nowhere: these labs run on TensorFlow" in done.stderr


def test_figures_do_not_follow_the_users_matplotlibrc(tmp_path):
    with matplotlib.rc_context():
        matplotlib.rcParams["text.usetex"] = True  # which needs LaTeX
        matplotlib.rcParams["savefig.transparent"] = True
        figure, axis = figures.subplots()
        axis.set(title="100 % of_it")
        first = figures.save(figure, tmp_path / "first.png", "sample").read_bytes()
    figure, axis = figures.subplots()
    axis.set(title="100 % of_it")
    assert figures.save(figure, tmp_path / "second.png", "sample").read_bytes() == first


def test_a_model_of_another_keras_names_both(tmp_path, capsys):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    good, foreign = tmp_path / "good.keras", tmp_path / "foreign.keras"
    model.save(good)
    assert labkit.load_model(good).count_params() == 3
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(foreign, "w") as target:
        for name in source.namelist():
            text = source.read(name)
            if name == "config.json":
                text = text.replace(b'"Dense"', b'"DenseOfTheFuture"')
            if name == "metadata.json":
                text = json.dumps({"keras_version": "9.9.9", "date_saved": ""}).encode()
            target.writestr(name, text)
    with pytest.raises(SystemExit) as stopped:
        labkit.load_model(foreign)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert f"saved by Keras 9.9.9, can't be read by Keras {keras.__version__}" in printed
    foreign.write_bytes(good.read_bytes()[:100])
    with pytest.raises(SystemExit):
        labkit.load_model(foreign)
    assert "train it again" in capsys.readouterr().err


def test_main_in_a_notebook_says_how_to_call_it(monkeypatch, capsys):
    from tp1_mnist_api import train_model

    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    with pytest.raises(SystemExit) as stopped:
        train_model.main()
    assert stopped.value.code == 2
    assert "main([])" in capsys.readouterr().err


def test_ctrl_c_during_the_imports_ends_without_a_traceback(python):
    code = (
        "import os, signal, time; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "import labkit; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    )
    done = python("-c", code)
    assert done.returncode == 130
    assert done.stderr.split() == ["Interrupted."]


# --- Folders -------------------------------------------------------------------------------------

ORIGIN = labkit.Origin(
    name="Words", credit="us", licence="none", files=("words.txt", "set/words.txt"),
    page="http://127.0.0.1:9", sample="other words",
)  # fmt: skip


def load_words() -> tuple[str, str]:
    def read(path: Path) -> tuple[str, str]:
        return path.read_text(), hashlib.sha256(path.read_bytes()).hexdigest()

    return labkit.obtain(ORIGIN, "auto", read, lambda: "sample words")


@pytest.mark.parametrize("given", ["", "words.txt", "set", "set/words.txt"])
def test_labkit_data_may_name_the_set_itself(tmp_path, monkeypatch, given):
    (tmp_path / "set").mkdir()
    for place in (tmp_path, tmp_path / "set"):
        (place / "words.txt").write_text("real words")
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / given))
    content, source = load_words()
    assert content == "real words"
    assert source.startswith("real:")


@pytest.mark.skipif(os.name != "posix", reason="users of POSIX")
def test_folders_that_may_not_be_read_are_named_and_passed_over(tmp_path, monkeypatch, capsys):
    for name, variable in (("data", "LABKIT_DATA"), ("keras", "KERAS_HOME")):
        (tmp_path / name / "datasets").mkdir(parents=True)
        monkeypatch.setenv(variable, str(tmp_path / name))
        (tmp_path / name).chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything
    try:
        content, source = load_words()
    finally:
        os.seteuid(user)
        for name in ("data", "keras"):
            (tmp_path / name).chmod(0o700)
    assert (content, source) == ("sample words", "sample")
    printed = capsys.readouterr().err
    assert f"{tmp_path / 'data' / 'words.txt'}: Permission denied" in printed
    assert f"{tmp_path / 'keras' / 'datasets' / 'words.txt'}: Permission denied" in printed


def test_a_user_without_a_home_gets_the_sample(monkeypatch):
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")  # as for an unknown user

    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setattr(Path, "home", nobody)
    assert load_words()[1] == "sample"


def test_outputs_that_cannot_be_written_name_the_variable(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(SystemExit) as stopped:
        one_run()
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert "LABKIT_HOME" in printed
    assert len(printed.splitlines()) == 1


def test_what_systems_leave_in_folders_is_no_data(tmp_path):
    tmp_path = tmp_path / "data"
    tmp_path.mkdir()
    for name in ("b", "a", ".DS_Store", "._a", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_text("x")
    for name in ("__MACOSX", ".ipynb_checkpoints", "sub"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("x")
    assert [path.name for path in files.entries(tmp_path)] == ["a", "b", "sub"]
    found = [path.relative_to(tmp_path).as_posix() for path in files.entries(tmp_path, "**/a")]
    assert found == ["a", "sub/a"]


def test_windows_line_ends_are_the_same_text(tmp_path):
    original, windows = tmp_path / "original.csv", tmp_path / "windows.csv"
    original.write_bytes("date,é\n1,2\n".encode())
    windows.write_bytes("\ufeffdate,é\r\n1,2\r\n".encode())
    digest = f"sha256:{hashlib.sha256(original.read_bytes()).hexdigest()}"
    assert files.verify(windows, digest, text=True) == files.verify(original, digest)
    windows.write_bytes("date,é\r\n1,3\r\n".encode())
    with pytest.raises(labkit.DataError, match="sha256"):
        files.verify(windows, digest, text=True)
    windows.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(labkit.DataError, match="unreadable"):
        files.verify(windows, digest, text=True)
