"""The client, the first run and the model that answers: addresses, proxies, sample and real."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

import labkit
from labkit.machine import free_port
from tests.conftest import NOWHERE, ROOT
from tools import first_run
from tp1_mnist_api import client, registry
from tp1_mnist_api.serving import model_file
from tp1_mnist_api.serving.model_file import LAB

SHIPPED = LAB / "model" / "mnist.tflite"


@pytest.fixture
def api():
    """The port of `python tp1_mnist_api/app.py` with the shipped model."""
    command = [sys.executable, str(ROOT / "tp1_mnist_api" / "app.py"), "--model", str(SHIPPED)]
    port = free_port()
    server = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        client.wait_until_ready(f"http://127.0.0.1:{port}", is_alive=lambda: server.poll() is None)
        yield port
    finally:
        server.terminate()
        server.wait(timeout=10)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "seven.png"
    page = Image.new("L", (200, 200), 255)
    page.paste(0, (50, 40, 130, 52))
    page.paste(0, (118, 40, 130, 160))
    page.save(path)
    return str(path)


@pytest.fixture
def behind_a_proxy(monkeypatch):
    """The environment of a company or campus, where a proxy is set and no exception made."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NOWHERE)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "http://127.0.0.1:{}", "localhost:{}/"])
def test_the_client_asks_this_machine_past_any_proxy(api, picture, behind_a_proxy, form):
    probabilities = client.main([picture, "--url", form.format(api), "--retries", "0"])
    assert max(probabilities, key=probabilities.get) == "7"


def test_another_machine_is_asked_through_the_proxy(behind_a_proxy, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "requests.adapters.HTTPAdapter.send",
        lambda self, request, **options: seen.append(options["proxies"]) or SimpleNamespace(),
    )
    for url in ("http://192.0.2.1:5000", "http://127.0.0.1:5000", "http://[::1]:5000"):
        session = client.session_for(url)
        request = session.prepare_request(client.requests.Request("GET", url))
        settings = session.merge_environment_settings(url, {}, False, True, None)
        session.get_adapter(url).send(request, **settings)
    assert [proxies.get("http") for proxies in seen] == [NOWHERE, None, None]


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "127.0.0.1:port", ":5000", ""])
def test_a_wrong_address_is_a_clear_error(picture, capsys, url):
    with pytest.raises(SystemExit) as stop:
        client.main([picture, f"--url={url}"])
    assert stop.value.code == 2
    assert "--url must be like http://127.0.0.1:5000" in capsys.readouterr().err


def test_nobody_answers(picture, capsys):
    with pytest.raises(SystemExit) as stop:
        client.main([picture, "--url", f"127.0.0.1:{free_port()}", "--retries", "0"])
    assert stop.value.code == 3
    assert "no API answers at http://127.0.0.1:" in capsys.readouterr().err


def test_the_client_shows_warnings(api, tmp_path, capsys):
    page = Image.new("L", (300, 200), 255)
    for left in (60, 220):
        page.paste(0, (left, 40, left + 14, 160))
    page.save(tmp_path / "two.png")
    client.main([str(tmp_path / "two.png"), "--url", f"127.0.0.1:{api}"])
    assert "Warning: several separate pieces" in capsys.readouterr().out


# --- Which model answers -------------------------------------------------------------------------


def put_champion(home, source: str):
    """A champion whose card says that it was trained on `source`."""
    folder = home / "outputs" / "champion"
    folder.mkdir(parents=True)
    (folder / "mnist.tflite").write_bytes(b"model")
    (folder / "mnist.json").write_text(json.dumps({"sha256": "0", "data_source": source}))
    return folder / "mnist.tflite"


def test_without_a_champion_the_shipped_model_answers(home):
    assert model_file.default_model() == SHIPPED
    assert "no model was trained here yet" in model_file.choice()[1]


def test_a_champion_from_the_sample_does_not_outrank_the_shipped_model(home):
    put_champion(home, "sample")
    path, reason = model_file.choice()
    assert path == model_file.default_model() == SHIPPED
    assert "trained on the sample only" in reason


def test_a_champion_from_real_data_answers(home):
    champion = put_champion(home, "real:06b0d1f1")
    assert model_file.default_model() == champion


def test_a_named_model_answers_whatever_it_saw(home, monkeypatch):
    champion = put_champion(home, "sample")
    monkeypatch.setenv("MODEL", str(champion))
    assert model_file.choice() == (champion, "named by MODEL")


@pytest.mark.parametrize(
    ("source", "tags", "is_replaced"),
    [
        ("real:06b0d1f1", "sample stratified 144", False),  # the registry is new, the files not
        ("sample", "sample stratified 144", True),
        ("sample", "real:06b0d1f1 stratified 6000", True),
        ("real:06b0d1f1", "real:06b0d1f1 stratified 6000", True),
    ],
)
def test_files_from_real_data_are_not_replaced_by_the_samples(
    home, tmp_path, monkeypatch, source, tags, is_replaced
):
    champion = put_champion(home, source)
    for name in ("mnist.tflite", "mnist.json"):
        (tmp_path / name).write_text("challenger")
    run = SimpleNamespace(folder=tmp_path, track=lambda function, *rest: function(*rest))
    monkeypatch.setattr(registry, "log_to_mlflow", lambda *arguments: True)
    registry.publish(run, None, None, {"validation_set": tags})
    assert (champion.read_bytes() == b"challenger") is is_replaced


def finished_run(tmp_path, source: str):
    """A training's run whose model is the shipped one with a card that says `source`."""
    (tmp_path / "mnist.tflite").write_bytes(SHIPPED.read_bytes())
    card = json.loads(SHIPPED.with_suffix(".json").read_text()) | {"data_source": source}
    (tmp_path / "mnist.json").write_text(json.dumps(card))
    return SimpleNamespace(folder=tmp_path, data_source=source)


@pytest.mark.parametrize("has_curl", [True, False])
@pytest.mark.parametrize("source", ["sample", "real:06b0d1f1"])
def test_the_first_run_says_which_model_answers_and_why(
    home, tmp_path, monkeypatch, capfd, behind_a_proxy, source, has_curl
):
    run = finished_run(tmp_path, source)
    monkeypatch.setattr(labkit, "find_run", lambda script: run)
    load = labkit.load_mnist
    monkeypatch.setattr(labkit, "load_mnist", lambda choice: load("sample"))
    monkeypatch.setattr(sys, "argv", ["first_run.py"])
    if not has_curl:
        monkeypatch.setattr(first_run.shutil, "which", lambda name: None)
    elif not first_run.shutil.which("curl"):
        pytest.skip("curl is not installed")
    first_run.main()
    shown = capfd.readouterr().out
    if source == "sample":
        assert "Your model was trained on the sample" in shown
        assert str(SHIPPED) in shown
    else:
        assert "The model just trained answers: it was trained on real data" in shown
    assert "The model says" in shown
