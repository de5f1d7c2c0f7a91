"""Opens a page in headless Chromium, over the DevTools protocol: how it looks, what it complains of, what it loads.

    look = open_page(path.as_uri(), tmp_path, width=390, dark=True, script="document.title")

Tests skip with a reason where there is no Chromium (Debian: apt-get install chromium); CHROMIUM names one elsewhere.
"""

import asyncio
import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--remote-debugging-port=0", "--remote-debugging-address=127.0.0.1",
)  # fmt: skip
DEADLINE_S = 60.0


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


needs_chromium = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on this machine: apt-get install chromium, or name one in CHROMIUM"
)


@dataclass
class Look:
    """One page as it was shown. `value` is what the script gave; `complaints` are errors of console, page and network;
    `requests` every URL it asked for; `png` the whole page."""

    value: Any = None
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    png: bytes = b""


def open_page(
    url: str, scratch: Path, *, width: int = 1200, height: int = 900, dark: bool = False, script: str = "null"
) -> Look:
    """Opens a URL in a fresh profile under `scratch` and runs a JavaScript expression once it has loaded."""
    executable = find_chromium()
    assert executable is not None, "mark the test with needs_chromium"
    profile = scratch / "chromium"
    shutil.rmtree(profile, ignore_errors=True)
    profile.mkdir(parents=True)
    command = [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with (scratch / "chromium.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            return asyncio.run(asyncio.wait_for(_look(profile, url, width, height, dark, script), DEADLINE_S))
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


async def _look(profile: Path, url: str, width: int, height: int, dark: bool, script: str) -> Look:
    port_file = profile / "DevToolsActivePort"
    while not (port_file.exists() and len(port_file.read_text().split()) == 2):
        await asyncio.sleep(0.05)
    port, path = port_file.read_text().split()
    look = Look()
    async with aiohttp.ClientSession() as http, http.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as ws:
        tools = DevTools(ws, look)
        target = await tools.ask("Target.createTarget", url="about:blank")
        attached = await tools.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tools.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await tools.ask(f"{domain}.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await tools.ask("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await tools.ask("Emulation.setEmulatedMedia", features=[scheme])
        await tools.ask("Page.navigate", url=url)
        await tools.loaded.wait()
        answer = await tools.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"the script failed: {answer['exceptionDetails']}")
        look.value = answer["result"].get("value")
        size = (await tools.ask("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = await tools.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        look.png = base64.b64decode(shot["data"])
    return look


class DevTools:
    """Commands and events of one page. Events that tell of trouble or of a request go into the look."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, look: Look) -> None:
        self.session: str | None = None
        self.loaded = asyncio.Event()
        self._ws = ws
        self._look = look
        self._next = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._next += 1
        waiting = self._waiting[self._next] = asyncio.get_running_loop().create_future()
        session = {} if self.session is None else {"sessionId": self.session}
        await self._ws.send_json({"id": self._next, "method": method, "params": params, **session})
        return await waiting

    async def _read(self) -> None:
        async for message in self._ws:
            told = json.loads(message.data)
            if "id" in told:
                waiting = self._waiting.pop(told["id"])
                if "error" in told:
                    waiting.set_exception(AssertionError(f"DevTools: {told['error']}"))
                else:
                    waiting.set_result(told["result"])
            else:
                self._note(told["method"], told["params"])

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self.loaded.set()
        elif event == "Network.requestWillBeSent":
            self._look.requests.append(params["request"]["url"])
        elif event == "Network.loadingFailed":
            self._look.complaints.append(params["errorText"])
        elif event == "Runtime.exceptionThrown":
            self._look.complaints.append(params["exceptionDetails"]["text"])
        elif event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self._look.complaints.append(params["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self._look.complaints.append(str(params["args"]))
