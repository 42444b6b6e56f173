"""Data: verified on every path, damaged files named, the sample never in silence."""

import functools
import hashlib
import http.server
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labkit import datasets, load_mnist

SHAPES = {"x_train": (8, 28, 28), "y_train": (8,), "x_test": (4, 28, 28), "y_test": (4,)}


def write_set(path: Path, seed: int = 0) -> Path:
    """A small set in MNIST's layout."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path, **{name: rng.integers(0, 256, shape, np.uint8) for name, shape in SHAPES.items()}
    )
    return path


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A web server on this machine that has the small set; MNIST's entry points there."""
    served = write_set(tmp_path / "mirror" / "mnist.npz")
    content = hashlib.sha256()
    with np.load(served) as arrays:
        for name in SHAPES:
            content.update(arrays[name].tobytes())

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(served.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = replace(
        datasets.ORIGINS["mnist"],
        url=f"http://127.0.0.1:{server.server_port}/mnist.npz",
        url_sha256=hashlib.sha256(served.read_bytes()).hexdigest(),
        content_sha256=content.hexdigest(),
        shapes=SHAPES,
    )
    monkeypatch.setitem(datasets.ORIGINS, "mnist", origin)
    yield served
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_network(monkeypatch):
    origin = replace(datasets.ORIGINS["mnist"], url="http://127.0.0.1:9/mnist.npz")
    monkeypatch.setitem(datasets.ORIGINS, "mnist", origin)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def tamper(path: Path) -> None:
    write_set(path, seed=1)


def replace_by_error_page(path: Path) -> None:
    path.write_text("<html>404</html>")


def test_sample_has_mnists_form_and_says_so(capsys, no_network):
    data = load_mnist("auto")
    assert data.source == "sample"
    assert data.x_train.shape == (1437, 28, 28)
    assert data.x_test.shape == (360, 28, 28)
    assert data.x_train.dtype == np.uint8
    assert data.x_train.max() == 255
    assert not data.x_train[:, :4].any()  # the margin of MNIST's 20-pixel box
    assert set(data.y_test) == set(range(10))
    warning = capsys.readouterr().err
    assert "sample" in warning
    assert "LABKIT_DATA" in warning
    assert "127.0.0.1:9" in warning  # what was tried


def test_real_without_file_and_network_is_exit_code_2(capsys, no_network):
    with pytest.raises(SystemExit) as stop:
        load_mnist("real")
    assert stop.value.code == 2
    assert "LABKIT_DATA" in capsys.readouterr().err


def test_script_without_file_and_network_has_no_traceback(python):
    done = python("tp1_mnist_api/train_model.py", "--data", "real")
    assert done.returncode == 2
    assert "error: --data real" in done.stderr
    assert "Traceback" not in done.stderr


def test_download_is_verified_and_cached(mirror):
    data = load_mnist("real")
    assert data.source == f"real:{datasets.ORIGINS['mnist'].content_sha256[:8]}"
    assert (datasets.keras_cache() / "mnist.npz").read_bytes() == mirror.read_bytes()
    mirror.unlink()  # the second time, the cache answers
    assert load_mnist("real").source == data.source


@pytest.mark.parametrize("damage", [truncate, tamper, replace_by_error_page])
def test_damaged_cache_is_named_and_replaced(mirror, damage, capsys):
    load_mnist("real")
    cached = datasets.keras_cache() / "mnist.npz"
    damage(cached)
    assert load_mnist("real").source.startswith("real:")
    assert str(cached) in capsys.readouterr().err
    assert cached.read_bytes() == mirror.read_bytes()


@pytest.mark.parametrize("damage", [truncate, tamper, replace_by_error_page])
def test_damaged_file_in_the_data_folder_is_named_and_left_alone(
    no_network, tmp_path, monkeypatch, damage, capsys
):
    path = write_set(tmp_path / "class" / "mnist.npz")
    damage(path)
    before = path.read_bytes()
    monkeypatch.setenv("LABKIT_DATA", str(path.parent))
    with pytest.raises(SystemExit) as stop:
        load_mnist("real")
    assert stop.value.code == 2
    assert str(path) in capsys.readouterr().err
    assert path.read_bytes() == before


def test_tampered_download_is_never_used(mirror, capsys):
    tamper(mirror)
    with pytest.raises(SystemExit):
        load_mnist("real")
    assert not (datasets.keras_cache() / "mnist.npz").exists()


@pytest.mark.realdata
def test_real_mnist_is_the_published_set(real_data):
    data = load_mnist("real")
    assert np.bincount(data.y_test).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert data.y_train[:5].tolist() == [5, 0, 4, 1, 9]
