"""Data: verified on every path, damaged files named, the sample never in silence."""

import functools
import hashlib
import http.server
import os
import pickle
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labkit import datasets, files, load_cifar10, load_mnist

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
        digest=f"sha256:{hashlib.sha256(served.read_bytes()).hexdigest()}",
        content_sha256=content.hexdigest(),
    )
    monkeypatch.setitem(datasets.ORIGINS, "mnist", origin)
    monkeypatch.setitem(datasets.SHAPES, "mnist", SHAPES)
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


def test_download_is_verified_and_cached(mirror):
    data = load_mnist("real")
    assert data.source == f"real:{datasets.ORIGINS['mnist'].content_sha256[:8]}"
    assert (files.keras_cache() / "mnist.npz").read_bytes() == mirror.read_bytes()
    mirror.unlink()  # the second time, the cache answers
    assert load_mnist("real").source == data.source


@pytest.mark.parametrize("damage", [truncate, tamper, replace_by_error_page])
def test_damaged_cache_is_named_and_replaced(mirror, damage, capsys):
    load_mnist("real")
    cached = files.keras_cache() / "mnist.npz"
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
    assert not (files.keras_cache() / "mnist.npz").exists()


# --- Any origin ------------------------------------------------------------------------------


ORIGIN = files.Origin(
    name="Tiny", credit="nobody", licence="none", files=("tiny.txt", "old/tiny.txt"),
    page="http://example.org/tiny", sample="a made-up word",
)  # fmt: skip


def read_word(path: Path) -> tuple[str, str]:
    if "bad" in path.read_text():
        raise files.DataError(f"{path}: damaged")
    return path.read_text(), "0123456789abcdef"


def test_every_name_is_looked_for_and_a_good_file_wins(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    (tmp_path / "old").mkdir()
    (tmp_path / "tiny.txt").write_text("bad")
    (tmp_path / "old" / "tiny.txt").write_text("good")
    assert files.obtain(ORIGIN, "auto", read_word, lambda: "") == ("good", "real:01234567")
    assert f"not used: {tmp_path / 'tiny.txt'}: damaged" in capsys.readouterr().err


def test_auto_warns_and_real_refuses(capsys):
    assert files.obtain(ORIGIN, "auto", read_word, lambda: "made up") == ("made up", "sample")
    warning = capsys.readouterr().err
    assert "a made-up word" in warning
    assert "Tiny figures" in warning
    assert "http://example.org/tiny" in warning
    with pytest.raises(SystemExit, match="2"):
        files.obtain(ORIGIN, "real", read_word, lambda: "made up")
    assert "--data real: Tiny can't be had" in capsys.readouterr().err
    assert files.obtain(ORIGIN, "sample", read_word, lambda: "made up") == ("made up", "sample")
    assert capsys.readouterr().err == ""


def test_a_file_that_the_user_names_is_read_or_refused(tmp_path, monkeypatch, capsys):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    assert files.obtain(ORIGIN, "auto", read_word, lambda: "", mine)[0] == "mine"
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    (tmp_path / "tiny.txt").write_text("another")
    mine.write_text("bad")
    with pytest.raises(SystemExit, match="2"):
        files.obtain(ORIGIN, "auto", read_word, lambda: "made up", mine)
    assert str(mine) in capsys.readouterr().err


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_verify_names_what_is_wrong(tmp_path, algorithm):
    path = tmp_path / "file"
    with pytest.raises(files.DataError, match="file: absent"):
        files.verify(path, f"{algorithm}:00")
    path.write_bytes(b"content")
    right = f"{algorithm}:{hashlib.new(algorithm, b'content').hexdigest()}"
    assert files.verify(path, right) == hashlib.sha256(b"content").hexdigest()
    path.write_bytes(b"contents")
    with pytest.raises(files.DataError, match=f"its {algorithm} is .*the official file's"):
        files.verify(path, right)
    with pytest.raises(files.DataError, match="unreadable"):
        files.verify(tmp_path, right)


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


# --- CIFAR-10 --------------------------------------------------------------------------------


def cifar_batches(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    """`images` (12, 32, 32, 3) as six batches of two, in the official layout."""
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for index, name in enumerate(names):
        part = slice(2 * index, 2 * index + 2)
        planes = images[part].transpose(0, 3, 1, 2).reshape(2, 3072)
        batch = {b"data": planes, b"labels": labels[part].tolist(), b"batch_label": b"1 of 5"}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return folder


@pytest.fixture
def small_cifar(monkeypatch, tmp_path) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, 12, np.uint8)
    digest = hashlib.sha256()
    for array in (images[:10], labels[:10], images[10:], labels[10:]):
        digest.update(np.ascontiguousarray(array))
    shapes = {
        "x_train": (10, 32, 32, 3),
        "y_train": (10,),
        "x_test": (2, 32, 32, 3),
        "y_test": (2,),
    }
    origin = replace(
        datasets.ORIGINS["cifar10"],
        url="http://127.0.0.1:9/cifar.tar.gz",
        content_sha256=digest.hexdigest(),
    )
    monkeypatch.setitem(datasets.ORIGINS, "cifar10", origin)
    monkeypatch.setitem(datasets.SHAPES, "cifar10", shapes)
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return images, labels


@pytest.mark.parametrize("form", ["npz", "folder", "archive", "keras"])
def test_cifar10_is_read_from_each_of_its_forms(form, small_cifar, tmp_path):
    images, labels = small_cifar
    data = tmp_path / "data"
    if form == "npz":
        np.savez(
            data / "cifar10.npz",
            x_train=images[:10], y_train=labels[:10, None],
            x_test=images[10:], y_test=labels[10:, None],
        )  # fmt: skip
    elif form == "folder":
        cifar_batches(data / "cifar-10-batches-py", images, labels)
    elif form == "keras":
        cache = files.keras_cache() / "cifar-10-batches-py-target"
        cifar_batches(cache / "cifar-10-batches-py", images, labels)
    else:
        folder = cifar_batches(tmp_path / "official" / "cifar-10-batches-py", images, labels)
        with tarfile.open(data / "cifar-10-python.tar.gz", "w:gz") as archive:
            archive.add(folder, arcname=folder.name)
    found = load_cifar10("real")
    assert found.source.startswith("real:")
    np.testing.assert_array_equal(found.x_train, images[:10])
    np.testing.assert_array_equal(found.y_train, labels[:10])
    np.testing.assert_array_equal(found.x_test, images[10:])
    np.testing.assert_array_equal(found.y_test, labels[10:])


def test_a_pickle_that_would_run_code_is_refused(small_cifar, tmp_path, capsys):
    class Harmful:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    folder = cifar_batches(tmp_path / "data" / "cifar-10-batches-py", *small_cifar)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Harmful(), b"labels": []}))
    with pytest.raises(SystemExit) as leaving:
        load_cifar10("real")
    assert leaving.value.code == 2
    assert not (tmp_path / "ran").exists()
    assert "system" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_cifar10_archive_is_named_and_not_used(damage, small_cifar, tmp_path, capsys):
    folder = cifar_batches(tmp_path / "official" / "cifar-10-batches-py", *small_cifar)
    if damage == "changed":
        content = bytearray((folder / "test_batch").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "test_batch").write_bytes(content)
    path = tmp_path / "data" / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        if damage != "empty":
            archive.add(folder, arcname=folder.name)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SystemExit) as leaving:
        load_cifar10("real")
    assert leaving.value.code == 2
    assert f"damaged data file, not used: {path}" in capsys.readouterr().err


def test_the_cifar10_sample_is_balanced_and_learnable_by_neighbours(capsys):
    from sklearn.neighbors import KNeighborsClassifier

    data = load_cifar10("sample")
    assert data.source == "sample"
    assert data.x_train.shape == (1000, 32, 32, 3)
    assert np.bincount(data.y_test).tolist() == [20] * 10
    edges = [
        np.abs(np.diff(x.astype(int), axis=1)).mean(axis=3) for x in (data.x_train, data.x_test)
    ]
    features = [edge.reshape(len(edge), -1) for edge in edges]
    accuracy = (
        KNeighborsClassifier(3).fit(features[0], data.y_train).score(features[1], data.y_test)
    )
    assert 0.3 < accuracy < 0.999  # far above chance, and nothing to be learnt by heart


@pytest.mark.realdata
def test_real_cifar10_is_the_known_set(real_data):
    data = load_cifar10("real")
    assert data.source == "real:80387ddb"
    assert np.bincount(data.y_train).tolist() == [5000] * 10
    assert data.y_train[:5].tolist() == [6, 9, 9, 4, 1]  # frog, truck, truck, deer, car
