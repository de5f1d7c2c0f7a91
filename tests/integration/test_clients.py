"""The clients people use find and call the tools: the official Python and TypeScript SDKs and the MCP Inspector.

The last two are installed from the npm registry at the versions of clients/package-lock.json; a machine that cannot
reach it skips them and says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from local_stack import ROOT, LocalStack
from npm_packages import installed

SOURCES = Path(__file__).parent / "clients"
INSTALLED = ROOT / ".tools" / "clients"
SUM = "result = 2 + 3\nprint(f'计算结果: {result}')"
TOOLS = {"execute_python", "list_preinstalled_packages", "get_environment_info"}


@pytest.fixture(scope="session")
def node() -> Path:
    """Directory of the installed clients' commands, Node 22 among them (the Inspector needs it)."""
    commands = installed(SOURCES, INSTALLED)
    shutil.copy(SOURCES / "call.mjs", INSTALLED)
    return commands


def run(node: Path, *command: str) -> dict[str, Any]:
    environment = os.environ | {"PATH": f"{node}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=INSTALLED, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
def test_typescript_client(product: LocalStack, node: Path, mode: str) -> None:
    printed = run(node, "node", "call.mjs", product.ready["endpoint"], mode)
    assert set(printed["tools"]) == TOOLS
    assert printed["called"]["structuredContent"]["stdout"] == "计算结果: 5\n"


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_inspector(product: LocalStack, node: Path, era: str) -> None:
    inspect = ("mcp-inspector", "--cli", product.ready["endpoint"], "--transport", "http", "--protocol-era", era)
    listed = run(node, *inspect, "--method", "tools/list")
    assert {tool["name"] for tool in listed["tools"]} == TOOLS
    called = run(node, *inspect, "--method", "tools/call", "--tool-name", "execute_python", "--tool-arg", f"code={SUM}")
    assert called["structuredContent"]["stdout"] == "计算结果: 5\n"


def test_python_client(product: LocalStack) -> None:
    from mcp.client.client import Client

    async def use() -> tuple[set[str], Any]:
        async with Client(product.ready["endpoint"]) as client:
            listed = await client.list_tools()
            called = await client.call_tool("execute_python", {"code": SUM})
            return {tool.name for tool in listed.tools}, called.structured_content

    names, result = asyncio.run(use())
    assert names == TOOLS
    assert result["stdout"] == "计算结果: 5\n"
