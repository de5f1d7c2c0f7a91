"""What one run of user code came to.

These models are the tool's output schema, so a change here is a change of contract.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ErrorType = Literal[
    "security",
    "syntax",
    "runtime",
    "timeout",
    "memory",
    "output_limit",
    "disk",
    "crashed",
    "exit",
    "package",
]


class Model(BaseModel):
    """What travels to a caller, or from one: a member that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid")


class ExecutionError(Model):
    """Why a run failed, in a form a model can act on."""

    type: ErrorType
    name: str = Field(description="Exception class, signal or limit, e.g. ZeroDivisionError, SIGSEGV")
    message: str
    line: int | None = Field(default=None, description="Line of the submitted code, counted from 1")
    traceback: str = Field(default="", description="Frames of the submitted code and of what it called")


class Output(Model):
    """One rich output; its bytes travel as an MCP content block in the same order."""

    mime_type: str
    bytes: int
    width: int | None = None
    height: int | None = None


class File(Model):
    """A file the run left in its directory, which is emptied after the call."""

    name: str
    bytes: int


class Usage(Model):
    wall_ms: float = Field(description="Wall clock of the run, from its request to the last byte read")
    cpu_ms: float = Field(description="User and system time of the run's process, its confinement included")
    max_rss_mb: float = Field(description="Peak resident set of the run's process, preloaded libraries included")
    install_ms: float = Field(default=0.0, description="Time spent installing `requirements`")


class Execution(Model):
    """Result of `execute_python`."""

    success: bool
    result: str = Field(
        description="Value of the variable `result`, else of the last expression, else a fixed sentence; "
        "on failure the error in one line"
    )
    stdout: str
    stderr: str
    warnings: str
    error: ExecutionError | None = None
    violations: list[str] = Field(
        default_factory=list, description="Operations that were refused, also those that the code caught"
    )
    outputs: list[Output] = Field(default_factory=list)
    files: list[File] = Field(default_factory=list, description="Files written; ask for contents with return_files")
    session_id: str | None = Field(default=None, description="The session this call left its names in")
    truncated: list[str] = Field(default_factory=list, description="Fields cut at a byte cap: stdout, result, ...")
    usage: Usage


class ChildOutput(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    mime_type: Literal["image/png", "image/jpeg", "image/svg+xml", "text/html"]
    data: str = Field(description="base64")
    width: int | None
    height: int | None


class ChildReport(BaseModel):
    """What the child writes on its result pipe. The child runs hostile code, so this is parsed as hostile input."""

    model_config = ConfigDict(extra="forbid", strict=True)

    result: str = Field(max_length=1 << 20)
    error: ExecutionError | None
    warnings: str = Field(max_length=1 << 20)
    outputs: list[ChildOutput] = Field(max_length=100)
    truncated: list[str] = Field(max_length=100)
