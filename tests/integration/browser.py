"""Drives headless Chromium over the DevTools protocol: how a page looks, what it complains of, loads and does.

    look = open_page(path.as_uri(), tmp_path, width=390, dark=True, script="document.title")

    with browser(tmp_path) as chromium:
        page = chromium.page(url)
        page.press("Enter", CTRL)
        page.wait_for("document.title == 'done'")

Tests skip with a reason where there is no Chromium (Debian: apt-get install chromium); CHROMIUM names one elsewhere.
"""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Coroutine, Iterator
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
ALT, CTRL, SHIFT = 1, 2, 8
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40}  # and their virtual key codes


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
    with browser(scratch) as chromium:
        page = chromium.page(url, width=width, height=height, dark=dark)
        page.look.value = page.run(script)
        page.look.png = page.picture()
        return page.look


@contextlib.contextmanager
def browser(scratch: Path) -> Iterator["Browser"]:
    """A running Chromium with a fresh profile under `scratch`."""
    executable = find_chromium()
    assert executable is not None, "mark the test with needs_chromium"
    profile = scratch / "chromium"
    shutil.rmtree(profile, ignore_errors=True)
    profile.mkdir(parents=True)
    command = [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with (scratch / "chromium.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            with asyncio.Runner() as runner:
                chromium = Browser(runner)
                try:
                    chromium.wait(chromium.connect(profile))
                    yield chromium
                finally:
                    chromium.wait(chromium.close())
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


class Browser:
    """Chromium as blocking calls: events of its pages are taken in while one of them waits."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._open = contextlib.AsyncExitStack()
        self._url = ""

    def wait[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(asyncio.wait_for(work, DEADLINE_S))

    async def connect(self, profile: Path) -> None:
        port_file = profile / "DevToolsActivePort"
        while not (port_file.exists() and len(port_file.read_text().split()) == 2):
            await asyncio.sleep(0.05)
        port, path = port_file.read_text().split()
        self._url = f"ws://127.0.0.1:{port}{path}"
        self._http = await self._open.enter_async_context(aiohttp.ClientSession())

    async def close(self) -> None:
        await self._open.aclose()

    def page(
        self, url: str, *, width: int = 1200, height: int = 900, dark: bool = False, media: str = "screen"
    ) -> "Page":
        """A new page, once it has loaded; `media` is screen or print."""
        return self.wait(self._page(url, width, height, dark, media))

    async def _page(self, url: str, width: int, height: int, dark: bool, media: str) -> "Page":
        ws = await self._open.enter_async_context(self._http.ws_connect(self._url, max_msg_size=0))
        look = Look()
        tools = DevTools(ws, look)
        target = await tools.ask("Target.createTarget", url="about:blank")
        attached = await tools.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tools.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await tools.ask(f"{domain}.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await tools.ask("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await tools.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])
        await tools.ask("Page.navigate", url=url)
        await tools.loaded.wait()
        return Page(self, tools, look)


class Page:
    """One page: what a person at it sees, types and presses."""

    def __init__(self, chromium: Browser, tools: "DevTools", look: Look) -> None:
        self._browser = chromium
        self._tools = tools
        self.look = look

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        return self._browser.wait(self._tools.ask(method, **params))

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"the script failed: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Returns once a JavaScript expression holds; fails with what the page says at the deadline."""
        poll = f"new Promise(held => {{ const look = () => ({condition}) ? held() : setTimeout(look, 20); look() }})"
        try:
            self.run(poll)
        except TimeoutError:
            raise AssertionError(f"never {condition}; the page says {self.run('document.body.innerText')}") from None

    def press(self, key: str, modifiers: int = 0) -> None:
        """A key of KEYS, with ALT, CTRL or SHIFT held."""
        told = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": modifiers}
        text = {"text": "\r"} if key == "Enter" and not modifiers else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **told, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **told)

    def type(self, text: str) -> None:
        """Text where the cursor is."""
        self.ask("Input.insertText", text=text)

    def close(self) -> None:
        self.ask("Page.close")

    def picture(self) -> bytes:
        """The whole page as PNG."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])


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
            if "id" not in told:
                self._note(told["method"], told["params"])
                continue
            waiting = self._waiting.pop(told["id"])
            if waiting.done():  # nobody waits any more
                continue
            if "error" in told:
                waiting.set_exception(AssertionError(f"DevTools: {told['error']}"))
            else:
                waiting.set_result(told["result"])

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
