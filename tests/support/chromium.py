"""A real Chromium without a window beside the tests, driven over its DevTools protocol: what people see and hear."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self, TypeAlias

import aiohttp
import pytest

from tests.support.processes import LOOPBACK, START_SECONDS, WAIT_SECONDS, Process, eventually

PROGRAM = Path(__file__).parents[2] / ".cache/chromium/chromium"
# Root may not have a sandbox, and a machine may have neither a GPU nor a large /dev/shm. The pages are the tests' own.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
)
MESSAGE_BYTES_MAX = 32 * 1024 * 1024
# What the browser wants to know of a key that types no text; any other is a character that it types.
KEY_CODES = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowUp": 38, "ArrowDown": 40}

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = "dict[str, Json]"


class Chromium:
    """A browser with one page, 1280 by 800 pixels at first, while the `async with` block runs.

    The test is skipped when there is no Chromium. `console` holds what the page's scripts complained about: errors that
    nobody caught, and whatever they or the browser wrote as an error.
    """

    def __init__(self) -> None:
        if not PROGRAM.exists():
            pytest.skip("needs Chromium: this machine has none, and Debian's cannot be fetched")
        self.console: list[str] = []
        self._stack = AsyncExitStack()
        self._answers: dict[int, asyncio.Future[JsonObject]] = {}
        self._events: set[str] = set()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._sent = 0

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)))
            command = (PROGRAM, *FLAGS, f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank")
            process = await stack.enter_async_context(Process(*command))
            listening = await process.wait_for_line("DevTools listening on ws://", START_SECONDS)
            port = listening.partition(f"{LOOPBACK}:")[2].partition("/")[0]
            session = await stack.enter_async_context(aiohttp.ClientSession())
            page = await eventually(lambda: _page(session, port), what="Chromium opens its page")
            connecting = session.ws_connect(page, max_msg_size=MESSAGE_BYTES_MAX)
            self._socket = await stack.enter_async_context(connecting)
            reader = asyncio.create_task(self._read(self._socket), name="messages of Chromium")
            stack.callback(reader.cancel)
            for domain in ("Page", "Runtime", "Log", "Accessibility"):
                await self.call(f"{domain}.enable")
            await self.resize(1280, 800)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def call(self, method: str, **parameters: Json) -> JsonObject:
        """Call a method of the DevTools protocol, such as `Page.reload`, and give its result; fail when it fails."""
        assert self._socket is not None, "start the browser first: async with Chromium()"
        self._sent += 1
        number, answer = self._sent, asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(WAIT_SECONDS):
            message = await answer
        assert "error" not in message, f"{method}: {message['error']}"
        return _object(message["result"])

    async def open(self, url: str, *, headers: Mapping[str, str] | None = None) -> None:
        """Go to a page, with `headers` on every request of it, and wait until it is loaded."""
        await self.call("Network.enable")
        await self.call("Network.setExtraHTTPHeaders", headers=dict(headers or {}))
        self._events.discard("Page.loadEventFired")
        result = await self.call("Page.navigate", url=url)
        assert not result.get("errorText"), f"{url}: {result['errorText']}"
        await eventually(lambda: "Page.loadEventFired" in self._events, what=f"{url} is loaded")

    async def evaluate(self, expression: str) -> Json:
        """Evaluate JavaScript in the page and give its value, a promise's when it is kept; fail when it throws."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return _object(result["result"]).get("value")

    async def resize(self, width: int, height: int, *, mobile: bool = False, dark: bool = False) -> None:
        """Give the page another size in CSS pixels, as a phone when `mobile`, and light or dark as people prefer."""
        metrics: JsonObject = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        await self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme: JsonObject = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self, *, whole: bool = True) -> bytes:
        """Give what the page looks like as a PNG: the whole page, or what is in view."""
        result = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(str(result["data"]))

    async def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key of KEY_CODES, or one that types a character."""
        text: JsonObject = {"text": "\r" if key == "Enter" else key} if key == "Enter" or len(key) == 1 else {}
        code = KEY_CODES.get(key) or ord(key.upper())
        common: JsonObject = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def accessible(self) -> list[tuple[str, str]]:
        """Give what a screen reader finds in the page: role and name of each thing that it does not pass over."""
        tree = await self.call("Accessibility.getFullAXTree")
        nodes = tree["nodes"]
        assert isinstance(nodes, list)
        seen = [node for node in map(_object, nodes) if not node["ignored"]]
        return [(_text(node, "role"), _text(node, "name")) for node in seen]

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            match message.json():
                case {"id": int(number)} as answer if number in self._answers:
                    self._answers.pop(number).set_result(answer)
                case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                    self.console.append(str(details))
                case {"method": "Log.entryAdded", "params": {"entry": {"level": "error", "text": text, **entry}}}:
                    self.console.append(f"{text} {entry.get('url', '')}")
                case {"method": "Runtime.consoleAPICalled", "params": {"type": "error", "args": arguments}}:
                    self.console.append(str(arguments))
                case {"method": str(method)}:
                    self._events.add(method)


async def _page(session: aiohttp.ClientSession, port: str) -> str:
    async with session.get(f"http://{LOOPBACK}:{port}/json/list") as answer:
        pages = [target["webSocketDebuggerUrl"] for target in await answer.json() if target["type"] == "page"]
    return str(pages[0]) if pages else ""


def _object(value: Json) -> JsonObject:
    assert isinstance(value, dict), value
    return value


def _text(node: JsonObject, name: str) -> str:
    return str(_object(node.get(name, {})).get("value", ""))
