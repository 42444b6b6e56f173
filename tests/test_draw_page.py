"""The page to draw on, in a real browser: mouse, keyboard, upload, dark mode, a phone's width."""

import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import labkit
from tests.test_server import Server
from tp1_mnist_api.serving.model_file import LAB

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the server is for Linux and macOS"),
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="no browser: on Debian, apt install chromium chromium-driver",
    ),
]
NOTHING = "\N{EN DASH}"
ONE = [(0, -80), (0, 160)]
SEVEN = [(-60, -80), (120, 0), (-60, 160)]
"""Strokes in three hundredths of the board: the start, seen from the middle, then steps."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as file:
        running = Server(file, WORKERS="1", DRAIN_SECONDS="0")
        yield running
        running.process.terminate()
        running.process.wait(timeout=40)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-quic",
        "no-first-run", "disable-background-networking", "disable-component-update",
        "disable-sync", f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, server):
    """The page, freshly loaded, 1100 pixels wide in light colours."""
    show(browser, "light", 1100)
    browser.get(server.url)
    return browser


def show(browser, colours: str, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": colours}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def draw(page, strokes: list[tuple[int, int]]) -> None:
    board = page.find_element(By.ID, "board")
    scale = board.size["width"] / 300
    start, *steps = [(round(x * scale), round(y * scale)) for x, y in strokes]
    mouse = webdriver.ActionChains(page, duration=50)
    mouse.move_to_element_with_offset(board, *start).click_and_hold()
    for step in steps:
        mouse.move_by_offset(*step)
    mouse.release().perform()


def shown(page) -> tuple[str, list[float]]:
    """The digit and the bars' percentages, read at one moment: answers may still come in."""
    text, bars = page.execute_script(
        "return [document.getElementById('digit').textContent,"
        " Array.from(document.querySelectorAll('.bar span'), span => span.textContent)]"
    )
    return text, [float(bar.removesuffix(" %")) for bar in bars if bar]


def wait_for(page, wanted: str) -> list[float]:
    """The percentages as soon as the page shows the digit `wanted`."""
    message = f"the page did not show {wanted}"
    return WebDriverWait(page, 10).until(
        lambda page: now if (now := shown(page))[0] == wanted else None, message
    )[1]


@pytest.mark.parametrize("width", [1100, 390])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_drawn_digit_is_read_and_escape_clears_it(page, colours, width):
    show(page, colours, width)
    for strokes, wanted in ((SEVEN, "7"), (ONE, "1")):
        draw(page, strokes)
        percentages = wait_for(page, wanted)
        assert len(percentages) == 10
        assert np.argmax(percentages) == int(wanted)
        assert sum(percentages) == pytest.approx(100, abs=0.6)  # each is rounded to 0.1
        page.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
        assert wait_for(page, NOTHING) == []


def test_a_picture_can_be_uploaded(page, tmp_path):
    data = labkit.load_mnist("sample")
    index = int(np.flatnonzero(data.y_test == 3)[0])
    picture = Image.fromarray(255 - data.x_test[index]).resize((280, 280))
    picture.save(tmp_path / "three.png")
    upload = page.find_element(By.ID, "file")
    upload.send_keys(str(tmp_path / "three.png"))
    assert len(wait_for(page, "3")) == 10
    (tmp_path / "broken.png").write_bytes(b"nothing")
    upload.send_keys(str(tmp_path / "broken.png"))
    message = page.find_element(By.ID, "message")
    WebDriverWait(page, 10).until(lambda page: "not a readable" in message.text)
    assert shown(page) == (NOTHING, [])


def test_two_digits_are_answered_with_a_warning_that_goes_away(page):
    warnings = page.find_element(By.ID, "warnings")
    draw(page, [(-80, -60), (0, 120)])
    draw(page, [(80, -60), (0, 120)])
    WebDriverWait(page, 10).until(lambda page: "several separate pieces" in warnings.text)
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    wait_for(page, NOTHING)
    assert warnings.text == ""
    draw(page, SEVEN)
    wait_for(page, "7")
    # The first stroke alone, a bar, was answered with a warning, too.
    WebDriverWait(page, 10).until(lambda page: warnings.text == "")


def test_the_page_says_which_data_the_model_saw(page):
    line = page.find_element(By.ID, "model")
    WebDriverWait(page, 10).until(lambda page: line.text)
    assert line.text.startswith("Model: compact, trained on real MNIST (real:06b0d1f1), 99.57 %")


def test_the_page_warns_of_a_model_from_the_sample(browser, tmp_path):
    shipped = LAB / "model" / "mnist.tflite"
    card = json.loads(shipped.with_suffix(".json").read_text()) | {"data_source": "sample"}
    (tmp_path / "mnist.tflite").write_bytes(shipped.read_bytes())
    (tmp_path / "mnist.json").write_text(json.dumps(card))
    with (tmp_path / "log").open("wb") as log:
        running = Server(log, MODEL=str(tmp_path / "mnist.tflite"), WORKERS="1", DRAIN_SECONDS="0")
        try:
            browser.get(running.url)
            line = browser.find_element(By.ID, "model")
            WebDriverWait(browser, 10).until(lambda page: "sample of 1,797" in line.text)
        finally:
            running.process.terminate()
            running.process.wait(timeout=40)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_phone_needs_no_sideways_scrolling(page, server, path):
    show(page, "light", 390)
    page.get(server.url + path)
    if path == "/docs":
        WebDriverWait(page, 10).until(lambda page: page.find_elements(By.TAG_NAME, "details"))
        page.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    root = "document.documentElement"
    assert page.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")


def brightness(page) -> float:
    colour = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    return np.mean([int(part) for part in colour.strip("rgb()").split(",")])


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_colours_follow_the_system(page, server, path):
    page.get(server.url + path)
    assert brightness(page) > 200
    show(page, "dark", 1100)
    assert brightness(page) < 50
