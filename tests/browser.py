"""A page in headless Chromium, over its debugging pipe: nothing but the standard library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--remote-debugging-pipe", "--hide-scrollbars",
)  # fmt: skip


class Page:
    """One page.

    Attributes:
        requests: addresses that it asked for, its own first.
        faults: errors and warnings of its console, and exceptions that nobody caught.
    """

    def __init__(self, ask: int, answer: int) -> None:
        self._ask, self._answer = ask, answer
        self._number, self._session, self._rest = 0, "", b""
        self.requests: list[str] = []
        self.faults: list[str] = []

    def call(self, method: str, **params: Any) -> Any:
        """What the browser answers; what it reports meanwhile is kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._ask, json.dumps(message).encode() + b"\0")
        while (got := self._read()).get("id") != self._number:
            self._note(got)
        assert "error" not in got, got["error"]
        return got["result"]

    def _read(self) -> Any:
        while b"\0" not in self._rest:
            more = os.read(self._answer, 1 << 16)
            assert more, "the browser ended"
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def _note(self, event: Any) -> None:
        kind, about = event.get("method"), event.get("params", {})
        if kind == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif kind == "Runtime.exceptionThrown":
            self.faults.append(str(about["exceptionDetails"]))
        elif kind == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.faults.append(str(about["args"]))
        elif kind == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.faults.append(about["entry"]["text"])

    def attach(self) -> None:
        """A tab of its own, watched."""
        tab = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=tab, flatten=True)
        self._session = found["sessionId"]
        for part in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{part}.enable")

    def open(self, path: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Load a file at a width, in a colour scheme, and wait until its scripts have run."""
        self.resize(width, height, scheme)
        self.run("window.before = true")
        self.call("Page.navigate", url=path.as_uri())
        self.wait("!window.before && document.readyState === 'complete'")

    def resize(self, width: int, height: int, scheme: str) -> None:
        """Another size of the window and colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=media)

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise's, once it is kept."""
        got = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def wait(self, condition: str, seconds: float = 20.0) -> None:
        """Wait until an expression holds in the page."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """Press one key."""
        code = {"windowsVirtualKeyCode": 27} if key == "Escape" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, **code)

    def screenshot(self, path: Path) -> None:
        """Keep what the window shows, as WebP."""
        got = self.call("Page.captureScreenshot", format="webp", quality=60)
        path.write_bytes(b64decode(got["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A page of a fresh Chromium whose profile is in ``folder``; both end with the block."""
    assert CHROMIUM is not None
    ask, to_browser = os.pipe()
    from_browser, answer = os.pipe()

    def wire() -> None:
        """Commands come on descriptor 3, answers go to 4."""
        os.dup2(ask, 13)
        os.dup2(answer, 14)
        os.dup2(13, 3)
        os.dup2(14, 4)

    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder}"],
        preexec_fn=wire,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(ask)
    os.close(answer)
    page = Page(to_browser, from_browser)
    try:
        page.attach()
        yield page
    finally:
        page._session = ""
        try:
            page.call("Browser.close")
        finally:
            process.wait(timeout=20)
            os.close(to_browser)
            os.close(from_browser)
