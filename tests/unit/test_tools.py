"""The tools over the official client in process: schemas, content blocks, errors, progress."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError

from interpreter.confinement import Limits
from interpreter.engine import Interpreter
from tools import VERSION, Tools, build_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    interpreter = Interpreter(Limits(timeout_s=20), scratch=tmp_path_factory.mktemp("scratch"))
    yield build_server(Tools(lambda: interpreter))
    interpreter.close()


def call(server: Any, name: str, arguments: dict[str, Any], **more: Any) -> Any:
    async def use() -> Any:
        async with Client(server) as client:
            return await client.call_tool(name, arguments, **more)

    return asyncio.run(use())


def listed(server: Any) -> dict[str, Any]:
    async def use() -> Any:
        async with Client(server) as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    return asyncio.run(use())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param("execute_python", {"code": "1 + 1"}, id="success"),
        pytest.param("execute_python", {"code": "1 / 0"}, id="failure"),
        pytest.param("execute_python", {"code": "1", "requirements": ["not a name"]}, id="package-error"),
        pytest.param("list_preinstalled_packages", {}, id="packages"),
        pytest.param("get_environment_info", {}, id="environment"),
    ],
)
def test_results_fit_their_schema_and_are_mirrored_as_text(server: Any, name: str, arguments: dict[str, Any]) -> None:
    result = call(server, name, arguments)
    schema = listed(server)[name].output_schema
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(result.structured_content, schema)
    assert json.loads(result.content[0].text) == result.structured_content
    assert result.is_error == (not result.structured_content["success"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param({}, "'code' is required", id="missing"),
        pytest.param({"code": 1}, "code must be a string", id="wrong-type"),
        pytest.param({"code": "1", "cod": "1"}, "'cod' is not an argument", id="unknown"),
        pytest.param(
            {"code": "x" * (1 << 20) + "x"}, "code: string should have at most 1048576 characters", id="too-long"
        ),
        pytest.param({"code": "1", "requirements": "numpy"}, "requirements must be an array", id="not-a-list"),
    ],
)
def test_wrong_arguments_are_told_so_that_a_model_can_act(server: Any, arguments: dict[str, Any], says: str) -> None:
    result = call(server, "execute_python", arguments)
    assert result.is_error
    assert says in result.content[0].text


def test_an_unknown_tool_is_a_protocol_error(server: Any) -> None:
    async def use() -> None:
        async with Client(server) as client:
            with pytest.raises(MCPError, match="Unknown tool: nope") as caught:
                await client.call_tool("nope", {})
            assert caught.value.code == -32602

    asyncio.run(use())


def test_figures_tables_and_files_are_content_blocks(server: Any) -> None:
    code = """import matplotlib.pyplot as plt, pandas as pd
plt.plot([1])
open('a.csv', 'w').write('x\\n')
open('b.bin', 'wb').write(b'\\xff')
pd.DataFrame({'a': [1]})"""
    result = call(server, "execute_python", {"code": code, "return_files": ["a.csv", "b.bin"]})
    _text, table, image, csv, binary = result.content
    assert (table.resource.mime_type, image.mime_type) == ("text/html", "image/png")
    assert (csv.resource.uri, csv.resource.mime_type, csv.resource.text) == ("file:///a.csv", "text/csv", "x\n")
    assert (binary.resource.mime_type, binary.resource.blob) == ("application/octet-stream", "/w==")
    assert [output["mime_type"] for output in result.structured_content["outputs"]] == ["text/html", "image/png"]


def test_the_environment_names_its_layers(server: Any) -> None:
    info = call(server, "get_environment_info", {}).structured_content
    layers = {layer["name"]: layer["active"] for layer in info["confinement"]}
    assert {"process", "rlimits", "nproc", "sweep", "wipe", "credentials", "audit-hook", "network"} <= set(layers)
    assert layers["nproc"] is False, "this process shares its uid"


def test_the_server_tells_the_projects_version() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
