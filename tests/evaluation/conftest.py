"""Example reports, and a headless Chromium that is controlled over a pipe by the DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whirl.data.recording import Recording
from whirl.data.simulation import simulate
from whirl.evaluation.metrics import evaluate_predictions
from whirl.evaluation.prediction import Predictions, aggregate_by_recording
from whirl.evaluation.report import Report
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES
from whirl.physics.rolling_bearing import BEARINGS, fault_orders

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]
# Chromium reads commands from file descriptor 3 and answers on 4.
LAUNCH = "import os, sys; _, a, b, *run = sys.argv; os.dup2(int(a), 3); os.dup2(int(b), 4); os.execv(run[0], run)"
TIMEOUT_S = 240


class Page:
    """A browser tab that records its network requests and console messages."""

    def __init__(self, profile: Path) -> None:
        to_browser, self._commands = os.pipe()
        self._answers, from_browser = os.pipe()
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(to_browser), str(from_browser), *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        os.set_blocking(self._answers, False)
        self._buffer, self._count, self._session = b"", 0, None
        self._events: list[dict[str, Any]] = []

    def connect(self) -> None:
        """Attach to the first tab and subscribe to its events."""
        target = next(t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        response = self._wait(lambda event: event.get("id") == self._count)
        if "error" in response:
            raise RuntimeError(f"{method}: {response['error']}")
        return response["result"]

    def _wait(self, is_expected: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first expected event."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            while b"\0" in self._buffer:
                line, self._buffer = self._buffer.split(b"\0", 1)
                self._events.append(json.loads(line))
                if is_expected(self._events[-1]):
                    return self._events[-1]
            try:
                chunk = os.read(self._answers, 1 << 20)
            except BlockingIOError:
                time.sleep(0.005)
                continue
            if not chunk:
                break
            self._buffer += chunk
        raise RuntimeError("Chromium does not respond")

    def open(self, path: Path, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Load a file and wait until all of its content is loaded."""
        self._events.clear()
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self("Page.navigate", url=path.as_uri())
        self._wait(lambda event: event.get("method") == "Page.loadEventFired")
        self.evaluate("new Promise(resolve => setTimeout(resolve, 200))")  # let timers and deferred scripts run

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        response = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in response:
            raise RuntimeError(response["exceptionDetails"]["text"])
        return response["result"].get("value")

    def _of(self, method: str) -> Iterator[dict[str, Any]]:
        return (event["params"] for event in self._events if event.get("method") == method)

    @property
    def requests(self) -> list[str]:
        """Addresses requested since `open`, except `data:`."""
        urls = [event["request"]["url"] for event in self._of("Network.requestWillBeSent")]
        return [url for url in urls if not url.startswith("data:")]

    @property
    def errors(self) -> list[str]:
        """Console messages of any level since `open`, and uncaught exceptions."""
        logged = [event["entry"]["text"] for event in self._of("Log.entryAdded")]
        called = [str(event["args"]) for event in self._of("Runtime.consoleAPICalled")]
        thrown = [event["exceptionDetails"]["text"] for event in self._of("Runtime.exceptionThrown")]
        return logged + called + thrown

    def screenshot(self, path: Path) -> None:
        """Save the complete page as PNG."""
        size = self("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        image = self("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(image))

    def close(self) -> None:
        """Terminate the browser."""
        os.close(self._commands)
        self._process.terminate()
        self._process.wait(TIMEOUT_S)
        os.close(self._answers)


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A tab of a headless Chromium; skips the test if Chromium is not installed."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    page = Page(tmp_path_factory.mktemp("chromium"))
    try:
        page.connect()
        yield page
    finally:
        page.close()


@pytest.fixture(scope="session")
def recordings() -> dict[str, list[Recording]]:
    """Simulated recordings of each class on six machines, with journal and with rolling bearings."""
    return {
        "journal": simulate(6, 1, JOURNAL_CLASSES, n_samples=20_480),
        "rolling": simulate(6, 2, ROLLING_CLASSES, n_samples=20_480),
    }


@pytest.fixture(scope="session")
def make_report(recordings: dict[str, list[Recording]]) -> Callable[..., Report]:
    """Factory of reports on simulated recordings, with mostly correct predictions; any field can be overridden."""

    def make(
        kind: str = "journal",
        change: Callable[[Recording], Recording] = lambda recording: recording,
        skill: float = 1.7,
        **fields: Any,
    ) -> Report:
        changed = [change(recording) for recording in recordings[kind]]
        classes = list(dict.fromkeys(str(recording.label) for recording in changed))
        n_train = len(changed) // 6  # one machine for training, five for testing
        test = changed[n_train:]
        target = np.repeat([classes.index(str(recording.label)) for recording in test], 5)
        logits = np.random.default_rng(0).normal(0, 1.5, (len(target), len(classes)))
        logits[np.arange(len(target)), target] += skill
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        windows = Predictions(probabilities, target, np.repeat(np.arange(len(test)), 5))
        settings: dict[str, Any] = {
            "title": "Fault diagnosis",
            "data": "simulated machines",
            "command": "whirl train --seed 3 --out runs/a",
            "config": {"model": "wdcnn", "data": None, "simulation": {"n_machines": 6}, "classes": classes},
            "classes": classes,
            "model": "wdcnn",
            "n_parameters": 54_321,
            "history": {
                "train_loss": [2.0, 1.0, 0.5],
                "val_loss": [2.1, 1.2, 1.3],
                "train_accuracy": [0.3, 0.6, 0.9],
                "val_accuracy": [0.2, 0.5, 0.6],
                "lr": [1e-3, 3e-3, 1e-4],
            },
            "metrics": evaluate_predictions(windows, test, classes),
            "predictions": aggregate_by_recording(windows),
            "parts": {"train": changed[:n_train], "test": test},
            "split_by": "specimen",
            "window": 4096,
            "hops": {"train": 2048},
            "orders": fault_orders(BEARINGS["6205"]) if kind == "rolling" else None,
        }
        return Report(**settings | fields)

    return make
