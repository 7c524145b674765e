"""A real browser without a screen, driven by the WebDriver protocol (W3C, 'WebDriver') over plain HTTP."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

#: Keys by their code points in the protocol (section 17.4.2).
TAB, ENTER, SPACE = "\ue004", "\ue007", " "
LEFT, UP, RIGHT, DOWN, HOME, END = "\ue012", "\ue013", "\ue014", "\ue015", "\ue011", "\ue010"

#: Nothing of this is for the page; it keeps the browser from talking to anybody of its own accord.
_ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
              "--disable-background-networking", "--disable-component-update", "--disable-sync",
              "--disable-dev-shm-usage", "--disable-default-apps", "--host-resolver-rules=MAP * ~NOTFOUND")


class Browser:
    """One window."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._session = ""

    def call(self, method: str, path: str, body: object = None) -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._address + path, data=data, method=method,
                                         headers={"Content-Type": "application/json"})
        # The driver is on this machine, whatever proxy the environment names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=300) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode(errors='replace')[:2000]}") from error

    def start(self, profile: Path) -> None:
        options = {"binary": BROWSER, "args": [*_ARGUMENTS, f"--user-data-dir={profile}"]}
        made = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}})
        self._session = f"/session/{made['sessionId']}"

    def close(self) -> None:
        if self._session:
            self.call("DELETE", self._session)

    def command(self, name: str, **parameters: object) -> Any:
        """A command of the browser's own protocol."""
        return self.call("POST", self._session + "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                     mobile=phone)

    def scripts(self, on: bool) -> None:
        """Whether pages opened from now on may run scripts; ours in :meth:`run` still do."""
        self.command("Emulation.setScriptExecutionDisabled", value=not on)

    def colours(self, scheme: str) -> None:
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url: str) -> None:
        self.call("POST", self._session + "/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """The value of a script's 'return'."""
        return self.call("POST", self._session + "/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, selector: str) -> None:
        """Click as a person does: in the middle, after scrolling there; fails when something lies above it."""
        found = self.call("POST", self._session + "/element", {"using": "css selector", "value": selector})
        self.call("POST", f"{self._session}/element/{next(iter(found.values()))}/click")

    def press(self, *keys: str) -> None:
        """Press and let go, one after the other."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", self._session + "/actions", {"actions": [
            {"type": "key", "id": "keyboard", "actions": actions}]})

    def complaints(self) -> list[str]:
        """What the browser wrote to its console: errors, breaches of the page's policy."""
        return [each["message"] for each in self.call("POST", self._session + "/se/log", {"type": "browser"})]

    def picture(self) -> bytes:
        return base64.b64decode(self.call("GET", self._session + "/screenshot"))

    def until(self, script: str, *arguments: object) -> None:
        """Wait until a script returns something true, at most a minute."""
        end = time.monotonic() + 60
        while not self.run(script, *arguments):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser with an empty profile; afterwards nothing of it is left."""
    assert DRIVER is not None
    top = Path(tempfile.mkdtemp(prefix="web"))
    log = top / "driver.log"
    environment = {"PATH": os.environ["PATH"], "HOME": str(top), "TMPDIR": str(top), "LANG": "C.UTF-8"}
    with log.open("wb") as out:
        # Its own session, so that all its processes can be ended together. It chooses a free port and says which.
        driver = subprocess.Popen([DRIVER, "--port=0"], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                  env=environment, start_new_session=True)
    window = None
    try:
        window = Browser(f"http://127.0.0.1:{_port(driver, log)}")
        (top / "profile").mkdir()
        window.start(top / "profile")
        yield window
    finally:
        if window is not None:
            with contextlib.suppress(OSError, AssertionError, ValueError):
                window.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGTERM)
        try:
            driver.wait(30)
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
        shutil.rmtree(top, ignore_errors=True)


def _port(driver: subprocess.Popen[bytes], log: Path) -> int:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for line in log.read_text(errors="replace").splitlines():
            # 'ChromeDriver was started successfully on port 36321.'
            if "successfully on port " in line:
                return int(line.rsplit(" ", 1)[1].rstrip("."))
        assert driver.poll() is None, log.read_text(errors="replace")
        time.sleep(0.05)
    raise AssertionError(f"chromedriver did not say its port: {log.read_text(errors='replace')}")
