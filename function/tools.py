"""The three MCP tools: their schemas, their results, and the errors a caller can act on.

Nothing here knows HTTP. `build_server` gives the `Server` that every transport serves.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
from collections.abc import Callable
from typing import Any

import anyio.to_thread
import jsonschema
import mcp_types as types
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, ConfigDict, Field

from interpreter.confinement import Limits
from interpreter.engine import Completed, Interpreter
from interpreter.execution import Execution
from interpreter.packages import MAX_REQUIREMENTS, preinstalled
from request import current_request
from telemetry import record_call, record_execution

NAME = "lambda-code-interpreter"
VERSION = "0.1.0"
MAX_CODE_BYTES = 1 << 20
log = logging.getLogger("interpreter")

INSTRUCTIONS = (
    "Runs Python in a sandbox. Each call is a fresh program: nothing is kept from the call before. numpy, pandas, "
    "matplotlib, scipy, scikit-learn and seaborn are installed; open matplotlib figures come back as images. There is "
    "no network unless the deployment allows it."
)


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ExecutePython(Model):
    """Arguments of `execute_python`."""

    code: str = Field(
        max_length=MAX_CODE_BYTES,
        description="Python source to run as a program. The value of the variable `result`, else of a last "
        "expression, is returned; what is printed is returned as stdout.",
    )
    requirements: list[str] = Field(
        default_factory=list,
        max_length=MAX_REQUIREMENTS,
        description="Packages to install first, e.g. ['humanize==4.9.0']. Names with optional versions; wheels only.",
    )


class NoArguments(Model):
    """Arguments of a tool that takes none."""


class Package(Model):
    name: str
    version: str


class PackageList(Model):
    """Result of `list_preinstalled_packages`."""

    success: bool = True
    python_version: str
    count: int
    packages: list[Package]


class Layer(Model):
    """One confinement layer and the truth about it here."""

    name: str
    active: bool
    detail: str


class EnvironmentInfo(Model):
    """Result of `get_environment_info`."""

    success: bool = True
    python_version: str
    platform: str
    architecture: str
    cpu_count: int
    memory_mb: int | None = Field(description="Memory of the function; null outside Lambda")
    network: str = Field(description="none or public")
    limits: dict[str, float]
    confinement: list[Layer]
    packages: dict[str, str] = Field(description="Versions of the libraries most asked for")


def schema(model: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema 2020-12 of a model, the dialect MCP assumes (2025-11-25 basic/index, JSON Schema usage)."""
    return model.model_json_schema(mode="serialization" if model in RESULTS.values() else "validation")


ARGUMENTS: dict[str, type[BaseModel]] = {
    "execute_python": ExecutePython,
    "list_preinstalled_packages": NoArguments,
    "get_environment_info": NoArguments,
}
RESULTS: dict[str, type[BaseModel]] = {
    "execute_python": Execution,
    "list_preinstalled_packages": PackageList,
    "get_environment_info": EnvironmentInfo,
}
DESCRIPTIONS = {
    "execute_python": "Run Python code in a sandbox and return its result, output, errors and figures.",
    "list_preinstalled_packages": "List the packages that are installed, with their versions.",
    "get_environment_info": "Describe the Python, its limits, and which confinement layers are active.",
}
INPUT_SCHEMAS = {name: schema(model) for name, model in ARGUMENTS.items()}
VALIDATORS = {name: jsonschema.Draft202012Validator(document) for name, document in INPUT_SCHEMAS.items()}


def tool_list() -> list[types.Tool]:
    return [
        types.Tool(
            name=name,
            description=DESCRIPTIONS[name],
            input_schema=INPUT_SCHEMAS[name],
            output_schema=schema(RESULTS[name]),
            annotations=types.ToolAnnotations(
                read_only_hint=name != "execute_python", destructive_hint=False, open_world_hint=False
            ),
        )
        for name in ARGUMENTS
    ]


class Tools:
    """The tools over one interpreter, which is made on first use so that importing this costs no processes."""

    def __init__(self, make_interpreter: Callable[[], Interpreter]) -> None:
        self._make = make_interpreter
        self._interpreter: Interpreter | None = None

    @property
    def interpreter(self) -> Interpreter:
        if self._interpreter is None:
            self._interpreter = self._make()
        return self._interpreter

    async def call(self, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        """Validate, run and record one call. Never raises: whatever happens is a result the caller can read."""
        result = await self._call(name, arguments)
        request = current_request()
        if request and (name != "execute_python" or result.structured_content is None):
            record_call(request, name, "error" if result.is_error else "ok")
        return result

    async def _call(self, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        problem = argument_problem(name, arguments)
        if problem is not None:
            return types.CallToolResult(content=[types.TextContent(type="text", text=problem)], is_error=True)
        try:
            if name == "execute_python":
                return await self.execute_python(ExecutePython.model_validate(arguments))
            if name == "list_preinstalled_packages":
                return result_of(await anyio.to_thread.run_sync(package_list))
            return result_of(await anyio.to_thread.run_sync(environment_info, self.interpreter))
        except Exception:
            # The SDK would put the exception's text on the wire, and it may name paths or values of ours.
            log.exception("tool %s failed", name)
            text = "The interpreter failed on its own account, not through the code. Try the call again."
            return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)

    async def execute_python(self, arguments: ExecutePython) -> types.CallToolResult:
        request = current_request()
        deadline_s = request.seconds_left() if request else None
        interpreter = self.interpreter
        completed: Completed = await anyio.to_thread.run_sync(
            lambda: interpreter.run(arguments.code, arguments.requirements, deadline_s=deadline_s)
        )
        execution = completed.execution
        if request:
            request.timings["install"] = execution.usage.install_ms
            request.timings["exec"] = execution.usage.wall_ms
            record_execution(request, arguments.code, arguments.requirements, execution)
        images = [
            types.ImageContent(type="image", data=image.data, mime_type=image.mime_type) for image in completed.images
        ]
        result = result_of(execution, is_error=not execution.success)
        result.content.extend(images)
        return result


def argument_problem(name: str, arguments: dict[str, Any]) -> str | None:
    """What is wrong with the arguments, as a sentence a model can act on; None where they are right."""
    errors = sorted(
        VALIDATORS[name].iter_errors(arguments), key=lambda error: (error.validator != "required", str(error.path))
    )
    if not errors:
        return None
    return f"Invalid arguments of {name}: " + "; ".join(_in_words(error) for error in errors[:5]) + "."


def _in_words(error: jsonschema.ValidationError) -> str:
    """One schema error without the value itself, which may be as large as the body."""
    where = ".".join(str(part) for part in error.absolute_path)
    given = type(error.instance).__name__
    if error.validator == "type":
        return f"{where or 'the arguments'} must be a JSON {error.validator_value}, not {given}"
    if error.validator in ("maxLength", "maxItems"):
        return f"{where} is longer than the {error.validator_value} allowed"
    return error.message[:200]


def result_of(model: BaseModel, *, is_error: bool = False) -> types.CallToolResult:
    """`structuredContent` and the same object as indented JSON in a text block (2025-11-25 server/tools)."""
    structured = model.model_dump(mode="json")
    text = json.dumps(structured, indent=2, ensure_ascii=False)
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)], structured_content=structured, is_error=is_error
    )


def package_list() -> PackageList:
    packages = [Package(name=name, version=version) for name, version in preinstalled()]
    return PackageList(python_version=platform.python_version(), count=len(packages), packages=packages)


def environment_info(interpreter: Interpreter) -> EnvironmentInfo:
    memory = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    limits = interpreter.limits
    asked_for = {"numpy", "pandas", "matplotlib", "scipy", "scikit-learn", "seaborn", "requests", "httpx"}
    return EnvironmentInfo(
        python_version=sys.version,
        platform=platform.platform(),
        architecture=platform.machine(),
        cpu_count=os.cpu_count() or 1,
        memory_mb=int(memory) if memory else None,
        network="public" if interpreter.network else "none",
        limits={name: float(getattr(limits, name)) for name in Limits.__dataclass_fields__},
        confinement=[Layer(name=name, active=active, detail=detail) for name, active, detail in interpreter.layers()],
        packages={name: version for name, version in preinstalled() if name.lower() in asked_for},
    )


def build_server(tools: Tools) -> Server[Any]:
    """The MCP server: tools and nothing else, so that it advertises only what it has."""

    async def list_tools(
        _context: ServerRequestContext[Any, Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        if params is not None and params.cursor is not None:
            raise MCPError(types.INVALID_PARAMS, "Invalid cursor: the tool list has one page")
        return types.ListToolsResult(tools=tool_list())

    async def call_tool(
        _context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        if params.name not in ARGUMENTS:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
        return await tools.call(params.name, params.arguments or {})

    server = Server(
        NAME,
        version=VERSION,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=INPUT_SCHEMAS.get,
        # The list is the same for everyone and changes with a deployment only.
        cache_hints={
            "server/discover": CacheHint(ttl_ms=300_000, scope="public"),
            "tools/list": CacheHint(ttl_ms=300_000, scope="public"),
        },
    )
    server.middleware.clear()  # OpenTelemetry spans nobody collects
    return server
