"""The interpreter without Lambda: `python server.py --mode stdio | streamable-http | fastapi`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import anyio

from settings import SettingsError, make_interpreter
from tools import Tools, build_server

EPILOG = """examples:
  python server.py --mode stdio                        for an MCP client that starts its servers
  python server.py --mode streamable-http --port 8000  MCP at http://127.0.0.1:8000/lambda/mcp/
  python server.py --mode fastapi --port 8000          the same, mounted in a FastAPI app, with /docs
"""


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=("stdio", "streamable-http", "fastapi"), default="stdio")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    return parser.parse_args(argv)


def run(argv: list[str]) -> int:
    arguments = parse(argv)
    try:
        interpreter = make_interpreter()
    except SettingsError as error:
        print(f"server.py: {error}", file=sys.stderr)
        return 2
    try:
        if arguments.mode == "stdio":
            anyio.run(serve_stdio, Tools(lambda: interpreter))
        else:
            import uvicorn

            uvicorn.run(http_app(arguments.mode, Tools(lambda: interpreter)), host=arguments.host, port=arguments.port)
    except KeyboardInterrupt:
        return 130
    finally:
        interpreter.close()
    return 0


def http_app(mode: str, tools: Tools) -> Any:
    """The endpoint by itself, or mounted in a FastAPI app as people embed it."""
    from app import build_app

    app = build_app(tools)
    if mode == "streamable-http":
        return app
    from fastapi import FastAPI

    embedding = FastAPI(title="Lambda Code Interpreter", redirect_slashes=False)
    embedding.mount("/", app)
    return embedding


async def serve_stdio(tools: Tools) -> None:
    from mcp.server.stdio import stdio_server

    server = build_server(tools)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
