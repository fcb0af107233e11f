"""As much of a browser as a test needs: Chromium over the pipe of its DevTools protocol."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
FLAGS = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage --remote-debugging-pipe"


class Browser:
    """Commands go in, replies come out; events are passed over."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._number, self._rest = write, read, 0, b""
        self.session = ""

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the result of a command, of the page once `open` has one."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + 60
        while True:
            reply = self._next(until)
            if reply.get("id") == self._number:
                assert "error" not in reply, (method, reply["error"])
                return dict(reply["result"])

    def open(self, url: str) -> None:
        """Open a page and wait for it."""
        target = self.send("Target.createTarget", url=url)["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        while self.run("document.readyState + location.href") != f"complete{url}":
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """Return what a script comes to; a promise is waited for."""
        found = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._read], [], [], max(until - time.monotonic(), 0))[0], "the browser says nothing"
            got = os.read(self._read, 1 << 16)
            assert got, "the browser ended"
            self._rest += got
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """Run one with an empty profile until the block ends."""
    (ours_in, theirs_out), (theirs_in, ours_out) = os.pipe(), os.pipe()

    def connect() -> None:
        held = os.dup(theirs_in), os.dup(theirs_out)  # beyond 3 and 4, where the browser reads and writes
        os.dup2(held[0], 3), os.dup2(held[1], 4)

    command = [FOUND, *FLAGS.split(), f"--user-data-dir={folder / 'profile'}", "about:blank"]
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(command, pass_fds=(3, 4), preexec_fn=connect, stdout=log, stderr=log)
    os.close(theirs_in), os.close(theirs_out)
    browser = Browser(ours_out, ours_in)
    try:
        yield browser
    finally:
        browser.session = ""
        with suppress(AssertionError, OSError):
            browser.send("Browser.close")
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
        os.close(ours_in), os.close(ours_out)
