"""The ASGI app: guard and MCP endpoint on both path forms, and a health check. Needs no lifespan.

A fresh session manager per request is the one pattern measured to survive warm invocations and to leave nothing
behind: the SDK's manager can be entered once only, and Lambda has no lifespan.
"""

from __future__ import annotations

import os
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from guard import MAX_BODY_BYTES, Guard, Message, Receive, Scope, Send
from request import Request, begin
from tools import VERSION, Tools, build_server

PATH = "/lambda/mcp"


class Endpoint:
    """The MCP endpoint of a stateless server."""

    def __init__(self, server: Server[Any], *, json_response: bool) -> None:
        self.server = server
        self.json_response = json_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        manager = StreamableHTTPSessionManager(
            app=self.server,
            stateless=True,
            json_response=self.json_response,
            security_settings=None,  # the guard checks the Origin; hosts behind API Gateway cannot be listed
            max_request_body_size=MAX_BODY_BYTES,
        )
        async with manager.run():
            await manager.handle_request(scope, receive, send)


class ResponseHeaders:
    """Adds what `request` knows to the response headers, once the answer is known."""

    def __init__(self, app: Guard) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request: Request = scope.get("interpreter.request") or Request()
        begin(request)
        start: Message | None = None

        async def tell(message: Message) -> None:
            # The start is held until the first bytes, since the timings are known only when the tool is done.
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None and (message.get("body") or not message.get("more_body")):
                start["headers"] = [*start.get("headers", ()), *request.headers()]
                await send(start)
                start = None
            if start is None:
                await send(message)

        await self.app(scope, receive, tell)


def build_app(tools: Tools) -> Starlette:
    """The app over `tools`. Reads MCP_RESPONSE (sse | json) and MCP_ALLOWED_ORIGINS (comma separated)."""
    origins = [origin for origin in os.environ.get("MCP_ALLOWED_ORIGINS", "").split(",") if origin.strip()]
    json_response = os.environ.get("MCP_RESPONSE", "sse") == "json"
    endpoint = ResponseHeaders(Guard(Endpoint(build_server(tools), json_response=json_response), origins=origins))

    async def health(_request: Any) -> JSONResponse:
        return JSONResponse({"status": "ok", "version": VERSION})

    # Both forms are served: API Gateway may or may not keep the trailing slash, and a redirect would lose the stage.
    return Starlette(routes=[Route(PATH, endpoint), Route(PATH + "/", endpoint), Route("/lambda/health", health)])
