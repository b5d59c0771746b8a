"""Chromium without a window and without a network, told what to do over a pipe.

The DevTools protocol: JSON messages with a zero byte behind each, on the descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE_S = 60.0

# The descriptors that Chromium reads and writes; a shell moves them there.
_MOVE = 'r=$1 w=$2; shift 2; exec "$@" 3<&"$r" 4>&"$w"'


def find_chromium() -> str | None:
    """Return the program, or None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One page of a running Chromium, and what it complained about."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes
        self._session: str | None = None
        self._last = 0
        self._rest = b""
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, path: Path, *, width: int = 1280, height: int = 900, scheme: str = "light"):
        """Open a file at a size and in a colour scheme, and wait until it is loaded."""
        self.complaints.clear()
        self.requests.clear()
        is_phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=is_phone,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.call("Page.navigate", url=path.as_uri())
        ends_s = time.monotonic() + PATIENCE_S
        while self.value("document.readyState") != "complete":
            assert time.monotonic() < ends_s, f"{path} does not load"
        # Two frames: what the scripts have drawn is laid out.
        self.value("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def value(self, expression: str) -> Any:
        """Return what JavaScript comes to."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self) -> bytes:
        """Return the whole page as PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def print_pdf(self) -> bytes:
        """Return the page as it is printed."""
        found = self.call("Page.printToPDF", printBackground=False)
        return base64.b64decode(found["data"])

    def close_browser(self) -> None:
        """End Chromium, and with it this page."""
        self._session = None
        self.call("Browser.close")

    def call(self, method: str, **params: Any) -> Any:
        """Give a command and return its result; what happens meanwhile is written down."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._last:
                assert "error" not in found, found
                return found["result"]
            self._note(found)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reads], [], [], PATIENCE_S)
            assert ready, "Chromium says nothing"
            more = os.read(self._reads, 1 << 20)
            assert more, "Chromium has ended"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(json.dumps(params["entry"]))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(params["args"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])


@contextmanager
def running_chromium(program: str, profile: Path) -> Generator[Page]:
    """Start Chromium and yield its one page; it ends with the block.

    Args:
        program: Its path.
        profile: An empty folder.
    """
    told, answered = os.pipe(), os.pipe()
    # The shell wants to put 3 and 4 in their places: ours must not stand there.
    child = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (told[0], answered[1])]
    command = [
        program,
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-background-networking", "--disable-extensions"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}"),
        *("--hide-scrollbars", "--remote-debugging-pipe"),
    ]
    process = subprocess.Popen(
        ["bash", "-c", _MOVE, "bash", *map(str, child), *command],
        pass_fds=child,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for fd in (told[0], answered[1], *child):
        os.close(fd)
    try:
        page = Page(answered[0], told[1])
        yield page
        page.close_browser()
        process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        os.close(told[1])
        os.close(answered[0])
