"""The pages as a browser shows them: Debian's Chromium, driven through its own protocol."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ensemble_kd.report.page import write_run_page, write_sweep_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-pipe",
)
PATIENCE = 120.0
"""Seconds after which a browser that says nothing is taken for dead."""
PHONE = 390


class Browser:
    """A browser without a window, which hears messages on one pipe and answers on another.

    Args:
        command: its executable.
        profile: an empty folder.
    """

    def __init__(self, command: str, profile: Path) -> None:
        hears, self._ask = os.pipe()
        self._answers, says = os.pipe()
        # The protocol is spoken on the descriptors 3 and 4, which may be among those of the pipes.
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 64) for end in (hears, says)]
        nowhere = [(os.POSIX_SPAWN_OPEN, k, os.devnull, os.O_RDWR, 0) for k in range(3)]
        spoken = [(os.POSIX_SPAWN_DUP2, end, k) for k, end in enumerate(high, start=3)]
        self._process = os.posix_spawn(
            command,
            [command, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            os.environ,
            file_actions=[*nowhere, *spoken],
        )
        for end in (hears, says, *high):
            os.close(end)
        self._heard = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **given: Any) -> dict[str, Any]:
        """The answer to a command; what happens until it comes is kept in ``events``."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        if session is not None:
            message["sessionId"] = session
        os.write(self._ask, json.dumps(message).encode() + b"\0")
        while True:
            said = self._next()
            if said.get("id") == self._number:
                assert "error" not in said, said
                answer: dict[str, Any] = said["result"]
                return answer
            self.events.append(said)

    def wait(self, method: str) -> None:
        """Until something has happened."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())

    def close(self) -> None:
        """End it."""
        self.call("Browser.close")
        os.waitpid(self._process, 0)
        os.close(self._ask)
        os.close(self._answers)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._heard:
            ready, _, _ = select.select([self._answers], [], [], PATIENCE)
            part = os.read(self._answers, 1 << 16) if ready else b""
            assert part, "the browser has died"
            self._heard += part
        message, _, self._heard = self._heard.partition(b"\0")
        said: dict[str, Any] = json.loads(message)
        return said


class Shown:
    """A page in a browser.

    Args:
        browser: an open one.
        path: of the page.
        width: of its window in pixels.
        scheme: ``light`` or ``dark``.
        media: ``screen`` or ``print``.
    """

    def __init__(
        self,
        browser: Browser,
        path: Path,
        width: int = 1200,
        scheme: str = "light",
        media: str = "screen",
    ) -> None:
        self.browser = browser
        self.url = path.resolve().as_uri()
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session: str = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width <= PHONE}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=features)
        browser.events.clear()
        self.ask("Page.navigate", url=self.url)
        browser.wait("Page.loadEventFired")
        self.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")

    def ask(self, method: str, **given: Any) -> dict[str, Any]:
        """A command to this page."""
        return self.browser.call(method, self.session, **given)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in JavaScript."""
        said = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def happened(self, method: str) -> list[dict[str, Any]]:
        """What was reported since the page was opened."""
        found = [each["params"] for each in self.browser.events if each.get("method") == method]
        return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests here."""
    command = next(filter(None, map(shutil.which, BROWSERS)), None)
    if command is None:
        if os.environ.get("CI"):
            pytest.fail("expected chromium, chromium-browser or google-chrome", pytrace=False)
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    opened = Browser(command, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(params=["run", "sweep"])
def page(
    request: pytest.FixtureRequest, make_run: Callable[..., Path], make_sweep: Callable[..., Path]
) -> Path:
    """The page of a run, and that of a sweep."""
    if request.param == "run":
        return write_run_page(make_run())
    return write_sweep_page(make_sweep())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_loaded_run_or_complained_of(browser: Browser, page: Path, scheme: str) -> None:
    shown = Shown(browser, page, scheme=scheme)
    requests = [each["request"]["url"] for each in shown.happened("Network.requestWillBeSent")]
    assert [url for url in requests if not url.startswith("data:image/png;base64,")] == [shown.url]
    assert shown.happened("Runtime.exceptionThrown") == []
    assert shown.happened("Runtime.consoleAPICalled") == []
    assert [each["entry"]["text"] for each in shown.happened("Log.entryAdded")] == []
    assert shown.happened("Page.javascriptDialogOpening") == []
    assert shown.evaluate("document.scripts.length") == 0
    assert shown.evaluate("document.querySelectorAll('svg').length") > 0


def test_a_script_in_a_page_would_be_noticed(browser: Browser, page: Path) -> None:
    broken = page.with_name("broken.html")
    broken.write_text(page.read_text().replace("</main>", "<script>alert(1)</script></main>"))
    shown = Shown(browser, broken)
    said = [each["entry"]["text"] for each in shown.happened("Log.entryAdded")]
    assert any("Content Security Policy" in text for text in said)


def test_light_and_dark_differ_on_paper_and_in_pictures(browser: Browser, page: Path) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        shown = Shown(browser, page, scheme=scheme)
        paper = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        tick = shown.evaluate("getComputedStyle(document.querySelector('svg .tick')).fill")
        colours[scheme] = (lightness(paper), lightness(tick))
    assert colours["light"][0] > 240 > 160 > colours["light"][1]
    assert colours["dark"][0] < 40 < 130 < colours["dark"][1]


@pytest.mark.parametrize("width", [PHONE, 800, 1200])
def test_the_page_is_no_wider_than_the_window(browser: Browser, page: Path, width: int) -> None:
    shown = Shown(browser, page, width=width)
    assert shown.evaluate("window.innerWidth") == width
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    # What is too wide for a phone scrolls in its own box, which can be reached by key.
    boxes = "[...document.querySelectorAll('.scroll')].filter(b => b.scrollWidth > b.clientWidth)"
    assert shown.evaluate(f"{boxes}.every(box => box.tabIndex === 0)")
    if width == PHONE:
        assert shown.evaluate(f"{boxes}.length") > 0
    # No picture is drawn larger than it is, or so small that its text cannot be read.
    found = shown.evaluate(
        "[...document.querySelectorAll('svg')].map(svg => "
        "svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"
    )
    assert 0.6 <= min(found) <= max(found) <= 1.001


def test_all_text_of_a_picture_lies_within_it(browser: Browser, page: Path) -> None:
    shown = Shown(browser, page)
    outside = shown.evaluate(
        """[...document.querySelectorAll('svg text')].filter(text => {
          const own = text.getBoundingClientRect();
          const box = text.ownerSVGElement.getBoundingClientRect();
          return own.width > 0 && (own.left < box.left - 1 || own.right > box.right + 1
            || own.top < box.top - 1 || own.bottom > box.bottom + 1);
        }).map(text => text.textContent)"""
    )
    assert outside == []


def test_every_reference_within_the_page_has_its_end(browser: Browser, page: Path) -> None:
    shown = Shown(browser, page)
    missing = shown.evaluate(
        """[...document.querySelectorAll('a[href^="#"], [aria-labelledby]')].flatMap(one =>
          (one.getAttribute('aria-labelledby') ?? one.getAttribute('href').slice(1)).split(' ')
        ).filter(name => document.getElementById(name) === null)"""
    )
    assert missing == []
    names = shown.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(names) == len(set(names))


def test_print_is_on_white_paper_and_whole(browser: Browser, page: Path) -> None:
    shown = Shown(browser, page, width=700, scheme="dark", media="print")
    assert lightness(shown.evaluate("getComputedStyle(document.body).backgroundColor")) == 255
    assert shown.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert shown.ask("Page.printToPDF")["data"].startswith("JVBERi0")  # %PDF- in base64


def lightness(colour: str) -> float:
    """Mean of the parts of ``rgb(...)``."""
    parts = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(parts) / 3
