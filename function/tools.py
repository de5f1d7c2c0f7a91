"""The three MCP tools: their schemas, their results, and the errors a caller can act on.

Nothing here knows HTTP. `build_server` gives the `Server` that every transport serves.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
import mimetypes
import os
import platform
import sys
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

import anyio.from_thread
import anyio.to_thread
import mcp_types as types
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, Field, ValidationError

from interpreter.confinement import Limits
from interpreter.engine import Interpreter
from interpreter.execution import Execution, Model
from interpreter.files import MAX_FILES_IN, Returned
from interpreter.outcome import Completed, Rich
from interpreter.packages import MAX_REQUIREMENTS, preinstalled
from request import Request, current_request
from telemetry import record_call, record_execution

NAME = "lambda-code-interpreter"
VERSION = "0.1.0"
MAX_CODE_BYTES = 1 << 20
MAX_PROGRESS_CHARACTERS = 1000  # of one line
log = logging.getLogger("interpreter")

INSTRUCTIONS = (
    "Runs Python in a sandbox. Each call is a fresh program: nothing is kept from the call before. numpy, pandas, "
    "matplotlib, scipy, scikit-learn and seaborn are installed; open matplotlib figures come back as images. There is "
    "no network unless the deployment allows it."
)


class Base64(Model):
    """Bytes of a file."""

    base64: str


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

    files: dict[str, str | Base64] = Field(
        default_factory=dict,
        max_length=MAX_FILES_IN,
        description="Files to lay beside the code, by relative name: a text, or {'base64': ...} for bytes.",
    )
    return_files: list[str] = Field(
        default_factory=list,
        max_length=MAX_FILES_IN,
        description="Names of files written by the code whose contents shall come back as embedded resources.",
    )
    session_id: str | None = Field(
        default=None,
        max_length=64,
        description="Where the deployment keeps sessions: 'new' starts one whose names stay for further calls with "
        "the session_id of its result. It lives in one environment and may be gone at the next call.",
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


@functools.cache
def input_schema(name: str) -> dict[str, Any] | None:
    """The schema of a tool's arguments, built on first use; None for an unknown tool."""
    return schema(ARGUMENTS[name]) if name in ARGUMENTS else None


@functools.cache
def tool_list() -> list[types.Tool]:
    return [
        types.Tool(
            name=name,
            description=DESCRIPTIONS[name],
            input_schema=input_schema(name) or {},
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

    async def call(
        self, name: str, arguments: dict[str, Any], report: ReportProgress | None = None
    ) -> types.CallToolResult:
        """Validate, run and record one call. Never raises: whatever happens is a result the caller can read.

        `report` takes progress, where the caller asked for it and the transport can carry it.
        """
        result = await self._call(name, arguments, report)
        request = current_request()
        if request and (name != "execute_python" or result.structured_content is None):
            record_call(request, name, "error" if result.is_error else "ok")
        return result

    async def _call(self, name: str, arguments: dict[str, Any], report: ReportProgress | None) -> types.CallToolResult:
        problem = argument_problem(name, arguments)
        if problem is not None:
            return types.CallToolResult(content=[types.TextContent(type="text", text=problem)], is_error=True)
        request = current_request() or Request()
        try:
            if name == "execute_python":
                with request.stacks_at_deadline():
                    return await self.execute_python(ExecutePython.model_validate(arguments), report)
            if name == "list_preinstalled_packages":
                return result_of(await anyio.to_thread.run_sync(package_list))
            return result_of(await anyio.to_thread.run_sync(environment_info, self.interpreter))
        except Exception:
            # The SDK would put the exception's text on the wire, and it may name paths or values of ours.
            log.exception("tool %s failed", name)
            text = "The interpreter failed on its own account, not through the code. Try the call again."
            return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)

    async def execute_python(self, arguments: ExecutePython, report: ReportProgress | None) -> types.CallToolResult:
        request = current_request()
        interpreter = self.interpreter
        completed: Completed = await anyio.to_thread.run_sync(
            lambda: interpreter.run(
                arguments.code,
                arguments.requirements,
                files=arguments.model_dump(include={"files"})["files"],
                return_files=arguments.return_files,
                session_id=arguments.session_id,
                deadline_s=request.seconds_left() if request else None,
                on_stdout=None if report is None else progress_of_lines(report),
            )
        )
        execution = completed.execution
        if request:
            request.timings["install"] = execution.usage.install_ms
            request.timings["exec"] = execution.usage.wall_ms
            record_execution(request, arguments.code, arguments.requirements, execution)
        result = result_of(execution, is_error=not execution.success)
        result.content.extend(rich_block(number, rich) for number, rich in enumerate(completed.rich))
        result.content.extend(file_block(file) for file in completed.files)
        return result


# (progress, total, message), as ServerSession.report_progress
ReportProgress = Callable[..., Coroutine[Any, Any, None]]


def progress_of_lines(report: ReportProgress) -> Callable[[str], None]:
    """A receiver of printed text that reports each whole line, numbered from 1, from the interpreter's thread."""
    pending, number = "", 0

    def on_stdout(text: str) -> None:
        nonlocal pending, number
        *lines, pending = (pending + text).split("\n")
        for line in lines:
            number += 1
            anyio.from_thread.run(report, float(number), None, line[:MAX_PROGRESS_CHARACTERS])

    return on_stdout


def rich_block(number: int, rich: Rich) -> types.ContentBlock:
    """An image block for what clients show as an image, else an embedded resource."""
    if rich.mime_type in ("image/png", "image/jpeg"):
        return types.ImageContent(type="image", data=base64.b64encode(rich.data).decode(), mime_type=rich.mime_type)
    text = rich.data.decode("utf-8", "replace")
    contents = types.TextResourceContents(uri=f"output:///{number}", mime_type=rich.mime_type, text=text)
    return types.EmbeddedResource(resource=contents)


def file_block(file: Returned) -> types.EmbeddedResource:
    mime_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    uri = f"file:///{quote(file.name)}"
    try:
        text = file.data.decode("utf-8")
    except UnicodeDecodeError:
        blob = base64.b64encode(file.data).decode()
        return types.EmbeddedResource(resource=types.BlobResourceContents(uri=uri, mime_type=mime_type, blob=blob))
    return types.EmbeddedResource(resource=types.TextResourceContents(uri=uri, mime_type=mime_type, text=text))


def argument_problem(name: str, arguments: dict[str, Any]) -> str | None:
    """What is wrong with the arguments, as a sentence a model can act on; None where they are right."""
    try:
        ARGUMENTS[name].model_validate(arguments, strict=True)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_context=True, include_input=False)
        return f"Invalid arguments of {name}: " + "; ".join(_in_words(error) for error in errors[:5]) + "."
    return None


def _in_words(error: Any) -> str:
    """One validation error without the value itself, which may be as large as the body."""
    where = ".".join(str(part) for part in error["loc"])
    known = {
        "missing": f"{where!r} is required",
        "extra_forbidden": f"{where!r} is not an argument",
        "string_type": f"{where} must be a string",
        "list_type": f"{where} must be an array",
        "dict_type": f"{where} must be an object",
    }
    return known.get(error["type"], f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}")


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
        context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        if params.name not in ARGUMENTS:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
        asked = "progressToken" in ((context.params or {}).get("_meta") or {})
        report = context.session.report_progress if asked else None
        return await tools.call(params.name, params.arguments or {}, report)

    server = Server(
        NAME,
        version=VERSION,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=input_schema,
        # The list is the same for everyone and changes with a deployment only.
        cache_hints={
            "server/discover": CacheHint(ttl_ms=300_000, scope="public"),
            "tools/list": CacheHint(ttl_ms=300_000, scope="public"),
        },
    )
    server.middleware.clear()  # OpenTelemetry spans nobody collects
    return server
