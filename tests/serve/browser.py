"""Drives Chromium over its debugging pipe, so that no driver is needed."""

import base64
import contextlib
import json
import os
import select
import subprocess
import time


CHROMIUM = "/usr/bin/chromium"


class ScriptError(Exception):
    """A script of a test cannot run."""


class Tab:
    """A page in Chromium.

    Attributes:
        faults: What the page reported: errors of scripts, and refused loads.
    """

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer
        self._buffer = b""
        self._number = 0
        self._session = None
        self.faults = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            found = self._receive(60)
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]

    def _receive(self, seconds):
        while b"\0" not in self._buffer:
            assert select.select([self._reader], [], [], seconds)[0], "no answer"
            self._buffer += os.read(self._reader, 2**20)
        line, _, self._buffer = self._buffer.partition(b"\0")
        found = json.loads(line)
        if found.get("method") == "Runtime.exceptionThrown":
            self.faults.append(found["params"]["exceptionDetails"])
        elif found.get("method") == "Log.entryAdded":
            entry = found["params"]["entry"]
            if entry["level"] == "error":
                self.faults.append(entry["text"])
        return found

    def run(self, script):
        """The value of an expression, after its promise."""
        found = self.send(
            "Runtime.evaluate",
            expression=script,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        if "exceptionDetails" in found:
            raise ScriptError(found["exceptionDetails"])
        return found["result"].get("value")

    def until(self, condition, seconds=30):
        """Wait until an expression is true; return its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(ScriptError):  # another page is just being opened
                if value := self.run(condition):
                    return value
            time.sleep(0.05)
        text = self.run("document.body.innerText")
        raise AssertionError(f"never: {condition}\n{text}\n{self.faults}")

    def resize(self, width, height, *, phone=False, scale=1):
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=phone,
        )

    def dark(self, is_dark):
        value = "dark" if is_dark else "light"
        feature = {"name": "prefers-color-scheme", "value": value}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def open(self, address):
        self.send("Page.navigate", url=address)

    def press(self, key, text=""):
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text)

    def point(self, x, y, kind="mouseMoved"):
        button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def click(self, selector):
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def choose_file(self, selector, path):
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        found = self.send("DOM.querySelector", nodeId=root, selector=selector)
        self.send("DOM.setFileInputFiles", files=[str(path)], nodeId=found["nodeId"])

    def screenshot(self, path, *, whole=True, kind="png"):
        more = {"quality": 82} if kind == "jpeg" else {}
        found = self.send(
            "Page.captureScreenshot", format=kind, captureBeyondViewport=whole, **more
        )
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def opened(folder):
    """Chromium with one empty page, for a ``with`` block."""
    to_chromium, from_us = os.pipe()
    from_chromium, to_us = os.pipe()

    process = subprocess.Popen(
        [
            # Chromium reads from 3 and writes to 4.
            *("bash", "-c", f'exec "$@" 3<&{to_chromium} 4>&{to_us}', "bash"),
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
        ],
        pass_fds=(to_chromium, to_us),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_chromium)
    os.close(to_us)
    try:
        yield Tab(from_chromium, from_us)
    finally:
        process.terminate()
        process.wait(10)
        os.close(from_us)
        os.close(from_chromium)
