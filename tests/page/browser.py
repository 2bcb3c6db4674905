"""A headless Chromium, driven over the WebDriver protocol by the standard library.

The browser never leaves the loopback: no host name resolves in it, and what it would do on its own
is switched off. What it asked for and what it complained about can be read afterwards.
"""

import base64
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.procs import LOOPBACK, Child

PATIENCE = 60.0  # seconds; a bound for a slow machine
DRIVER = "chromedriver"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",  # it runs as root in CI, and shows nothing but our own page
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE " + LOOPBACK,
)


def missing_reason() -> str | None:
    """Return what the tests lack to drive a browser, or None when all is there."""
    if _browser() is None:
        return f"no browser: none of {', '.join(BROWSERS)} is on the PATH"
    if shutil.which(DRIVER) is None:
        return f"no {DRIVER} on the PATH"
    return None


class Browser:
    """One browser with one window; a context manager that ends it."""

    def __init__(self, folder: Path, flags: Sequence[str] = ()) -> None:
        """Describe it; entering the context starts it. `folder` takes its profile and logs."""
        self._folder = folder
        self._flags = (*_FLAGS, f"--user-data-dir={folder / 'profile'}", *flags)
        self._driver = Child(
            [DRIVER, "--port=0"],
            name=DRIVER,
            folder=folder,
            env={"TMPDIR": str(folder), "HOME": str(folder)},
        )
        self._address = ""
        self._session = ""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._driver.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._command("DELETE", "")
        finally:
            self._driver.close()

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded; what was logged before is forgotten."""
        self._command("POST", "/url", {"url": "about:blank"})
        self.complaints()
        self.requests()
        self._command("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """Return what the body of a function gives, called in the page."""
        return self._command("POST", "/execute/sync", {"script": script, "args": arguments})

    def text(self, selector: str) -> str:
        """Return what the first such element shows; "" when it is hidden or not there."""
        script = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return str(self.run(script, selector)).strip()

    def texts(self, selector: str) -> list[str]:
        """Return what each such element shows, in one line."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)"
        return [" ".join(str(text).split()) for text in self.run(script, selector)]

    @property
    def title(self) -> str:
        """The title of the page."""
        return str(self._command("GET", "/title"))

    def complaints(self) -> list[str]:
        """Return what the console has shown as an error or a warning since the last call."""
        entries = self._log("browser")
        return [entry["message"] for entry in entries if entry["level"] in {"SEVERE", "WARNING"}]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]

    def devtools(self, method: str, **parameters: object) -> Any:
        """Send a command of the DevTools protocol."""
        return self._command("POST", "/goog/cdp/execute", {"cmd": method, "params": parameters})

    def resize(self, width: int, height: int) -> None:
        """Give the page a window of so many CSS pixels."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < height,
        )

    def prefer(self, scheme: str) -> None:
        """Have the reader prefer light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.devtools("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self) -> bytes:
        """Return what the window shows, as PNG."""
        return base64.b64decode(self._command("GET", "/screenshot"))

    def spoken(self) -> list[tuple[str, str]]:
        """Return what a screen reader is told: the role and the name of each part, in order."""
        nodes = self.devtools("Accessibility.getFullAXTree")["nodes"]
        parts = [node for node in nodes if not node["ignored"] and "name" in node]
        return [(node["role"]["value"], str(node["name"].get("value", ""))) for node in parts]

    def _start(self) -> None:
        self._driver.start()
        port = self._driver.wait_for_line(r"started successfully on port (\d+)").group(1)
        self._address = f"http://{LOOPBACK}:{port}/session"
        options = {"args": list(self._flags), "binary": _browser()}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = self._send("POST", self._address, {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"{self._address}/{made['sessionId']}"

    def _log(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self._command("POST", "/se/log", {"type": kind})
        return entries

    def _command(self, method: str, path: str, body: object = None) -> Any:
        return self._send(method, self._session + path, body)

    def _send(self, method: str, address: str, body: object) -> Any:
        data = None if method != "POST" else json.dumps(body).encode()
        request = urllib.request.Request(address, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as refused:
            why = json.load(refused)["value"]["message"]
            raise AssertionError(f"{method} {address}: {why}\n{self._driver.tail()}") from None


def _browser() -> str | None:
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)
