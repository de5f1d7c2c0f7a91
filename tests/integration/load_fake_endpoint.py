"""A small MCP endpoint with known faults, run as a process by the load tests. It runs no code: it knows the answers.

    python tests/integration/load_fake_endpoint.py --port 0 --fault tool-error

Prints one JSON line with its endpoint when it listens. Environments are pretended: each answers one request at a time,
its first invocation is cold and says how long its init took.
"""

import argparse
import asyncio
import base64
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

FAULTS = (
    "none",
    "tool-error",
    "wrong-answer",
    "rpc-error",
    "http-500",
    "forbidden",
    "hang",
    "cut",
    "stall",
)
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(17)).decode()


@dataclass
class Environment:
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    invocations: int = 0


@dataclass
class Fake:
    fault: str
    work_s: float
    init_s: float
    stall_every_s: float
    stall_s: float
    faulty: int
    idle: list[Environment] = field(default_factory=list)
    started: float = 0.0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        message = json.loads(await request.read())
        if self.faulty == 0:
            self.fault = "none"
        self.faulty -= 1
        if self.fault == "stall":
            return await self._stall()
        if self.fault == "hang":
            await asyncio.sleep(3600)
        if self.fault == "http-500":
            return web.Response(status=500, text="broken")
        if self.fault == "forbidden":
            return web.json_response({"message": "Forbidden"}, status=403)
        if self.fault == "cut":
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        environment = self.idle.pop() if self.idle else Environment()
        environment.invocations += 1
        cold = environment.invocations == 1
        if cold:
            await asyncio.sleep(self.init_s)
        await asyncio.sleep(1.5 if "time.sleep" in json.dumps(message) else self.work_s)
        self.idle.append(environment)
        return self._reply(request, message, environment, cold)

    async def _stall(self) -> web.Response:
        """Frozen for the first `stall_s` of every `stall_every_s`; otherwise at once."""
        phase = (time.monotonic() - self.started) % self.stall_every_s
        if phase < self.stall_s:
            await asyncio.sleep(self.stall_s - phase)
        body = {"jsonrpc": "2.0", "id": 2, "result": tool_result("计算结果: 5")}
        return web.json_response(body)

    def _reply(
        self, request: web.Request, message: dict[str, Any], environment: Environment, cold: bool
    ) -> web.Response:
        headers = {
            "X-Lambda-Request-Id": str(uuid.uuid4()),
            "X-Lambda-Environment-Id": environment.id,
            "X-Lambda-Invocation": str(environment.invocations),
            "X-Lambda-Init-Type": "on-demand",
            "Server-Timing": (f"init;dur={self.init_s * 1000:.1f}, " if cold else "") + "install;dur=0, exec;dur=1.5",
        }
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": self._result(message)}
        if self.fault == "rpc-error":
            answer = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32603, "message": "internal"}}
        if request.headers.get("MCP-Protocol-Version") == "2026-07-28":
            return web.json_response(answer, headers=headers)
        text = f"event: message\r\ndata: {json.dumps(answer)}\r\n\r\n"
        return web.Response(text=text, content_type="text/event-stream", headers=headers)

    def _result(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.fault == "tool-error":
            return tool_failure("RuntimeError", "no numpy today")
        if self.fault == "wrong-answer":
            return tool_result("4")
        if message["params"].get("name") == "list_preinstalled_packages":
            packages = [{"name": name, "version": "1"} for name in ("numpy", "pandas", "matplotlib")]
            return {"structuredContent": {"packages": packages}, "content": [], "isError": False}
        code = message["params"]["arguments"]["code"]
        if "1 / 0" in code:
            return tool_failure("ZeroDivisionError", "division by zero")
        if "plt" in code:
            image = {"type": "image", "mimeType": "image/png", "data": PNG}
            return {**tool_result(""), "content": [image]}
        if "os.system" in code:
            return tool_failure("SecurityError", "Blocked dangerous operation: os.system", "security")
        known = {"tabulate": "['2', '3']", "numpy": "333283335000", "pandas": "1784292", "time.sleep": "held"}
        known["pandas"] = str(sum(range(3, 5000, 7)))
        return tool_result(next((value for word, value in known.items() if word in code), "计算结果: 5"))


def tool_result(stdout: str) -> dict[str, Any]:
    structured = {"success": True, "result": "", "stdout": stdout + "\n", "stderr": "", "error": None}
    return {"structuredContent": structured, "content": [], "isError": False}


def tool_failure(name: str, message: str, kind: str = "runtime") -> dict[str, Any]:
    error = {"type": kind, "name": name, "message": message}
    structured = {"success": False, "result": f"{name}: {message}", "stdout": "", "stderr": "", "error": error}
    structured["violations"] = ["os.system"] if kind == "security" else []
    return {"structuredContent": structured, "content": [], "isError": True}


async def serve(arguments: argparse.Namespace) -> None:
    a = arguments
    fake = Fake(a.fault, a.work_s, a.init_s, a.stall_every_s, a.stall_s, a.faulty)
    fake.started = time.monotonic()
    app = web.Application()
    app.router.add_post("/mcp", fake.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", arguments.port)
    await site.start()
    port = runner.addresses[0][1]
    print(json.dumps({"endpoint": f"http://127.0.0.1:{port}/mcp"}), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fault", choices=FAULTS, default="none")
    parser.add_argument("--faulty", type=int, default=-1, help="so many requests meet the fault, and no later one")
    parser.add_argument("--work-s", type=float, default=0.002)
    parser.add_argument("--init-s", type=float, default=0.05)
    parser.add_argument("--stall-every-s", type=float, default=2.0)
    parser.add_argument("--stall-s", type=float, default=0.4)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
