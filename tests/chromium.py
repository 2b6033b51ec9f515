"""Headless Chromium through its DevTools pipe (file descriptors 3 and 4): no port, no library."""

import base64
import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import time

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
]
PATIENCE = 120
REQUIRED = os.environ.get("STL_DEPLOY_REQUIRE_BROWSER") == "1"
"""Where a browser is insisted on, a missing one fails the tests instead of skipping them."""


class Page:
    """One page. Raises AssertionError for what its scripts throw, TimeoutError when the browser says nothing."""

    def __init__(self, commands, answers):
        self._commands, self._answers = commands, answers
        self._count, self._buffer, self._session = 0, b"", None
        self.events = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, url, width=1280, height=900):
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._call("Page.navigate", url=url)

    def load(self, url):
        """Open ``url`` and wait until it has loaded."""
        self.open(url)
        while not self.seen("Page.loadEventFired"):
            self.events.append(self._read())

    def emulate(self, media, width=1280, height=900):
        """Show the page as on ``media`` (screen or print), in a window of that size."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._call("Emulation.setEmulatedMedia", media=media)

    def seen(self, method):
        """What came with every event of one kind so far."""
        return [event["params"] for event in self.events if event.get("method") == method]

    @property
    def complaints(self):
        """Uncaught exceptions and the browser's own messages."""
        return self.seen("Runtime.exceptionThrown") + self.seen("Log.entryAdded")

    def evaluate(self, expression):
        """The value of a JavaScript expression; promises are awaited."""
        found = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, expression):
        end = time.monotonic() + PATIENCE
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"never true: {expression}; the page said {self.complaints}"
            time.sleep(0.05)

    def drag(self, points):
        """Press at the first point, move through the others, release; in pixels of the window."""
        self._mouse("mousePressed", points[0])
        for point in points[1:]:
            self._mouse("mouseMoved", point)
        self._mouse("mouseReleased", points[-1])

    def screenshot(self):
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def printed_pages(self):
        """Pages of A4 that the page prints on."""
        printed = base64.b64decode(self._call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])
        return len(re.findall(rb"/Type\s*/Page\b", printed))

    def _mouse(self, kind, point):
        self._call(
            "Input.dispatchMouseEvent", type=kind, x=point[0], y=point[1], button="left", buttons=1, clickCount=1
        )

    def _call(self, method, **params):
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _read(self):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], PATIENCE)
            if not ready:
                raise TimeoutError(f"Chromium was silent for {PATIENCE} s")
            part = os.read(self._answers, 2**20)
            assert part, "Chromium has gone"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def page(profile):
    """A page of a new Chromium, whose profile is the folder ``profile``."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    shell = 'exec "$@" 3<&"$IN" 4>&"$OUT"'
    environment = {**os.environ, "IN": str(theirs_in), "OUT": str(theirs_out), "HOME": str(profile)}
    # bash: sh takes only one-digit descriptors
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", PROGRAM, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(theirs_in, theirs_out),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(ours_out, ours_in)
    finally:
        os.close(ours_out)
        os.close(ours_in)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
