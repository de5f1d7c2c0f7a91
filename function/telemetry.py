"""One JSON record per tool call, with CloudWatch metrics embedded in it. Never the code itself, only its digest.

Metrics are the Embedded Metric Format (CloudWatch Logs reads `_aws` out of the record), so no API is called and no
credential is needed. ops and the alarms read these records.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from interpreter.execution import Execution
from request import Request, environment_id

NAMESPACE = "CodeInterpreter"
METRICS = (
    ("calls", "Count"),
    ("blocked", "Count"),
    ("timeouts", "Count"),
    ("memory_kills", "Count"),
    ("exec_ms", "Milliseconds"),
)
log = logging.getLogger("interpreter.calls")
log.setLevel(logging.INFO)
# Lambda's JSON writes every attribute of a record, and the name of the SDK's task tells nothing.
logging.logAsyncioTasks = False  # type: ignore[attr-defined]


def record_execution(request: Request, code: str, requirements: Sequence[str], execution: Execution) -> None:
    """Log what came of an `execute_python` call."""
    kind = execution.error.type if execution.error else None
    usage = execution.usage
    source = code.encode("utf-8", "surrogatepass")
    fields = {
        "outcome": "ok" if execution.success else "error",
        "error_type": kind,
        "error_name": execution.error.name if execution.error else None,
        "violations": execution.violations,
        "wall_ms": usage.wall_ms,
        "cpu_ms": usage.cpu_ms,
        "install_ms": usage.install_ms,
        "max_rss_mb": usage.max_rss_mb,
        "code_sha256": hashlib.sha256(source).hexdigest(),
        "code_bytes": len(source),
        "requirements": list(requirements),
    }
    metrics = {
        "calls": 1,
        "blocked": int(bool(execution.violations)),
        "timeouts": int(kind == "timeout"),
        "memory_kills": int(kind == "memory"),
        "exec_ms": usage.wall_ms,
    }
    _write("execute_python", request, fields | metrics)


def record_call(request: Request, tool: str, outcome: str) -> None:
    """Log a call of a tool that runs no code."""
    _write(tool, request, {"outcome": outcome, "calls": 1})


def _write(tool: str, request: Request, fields: dict[str, Any]) -> None:
    if request.context is None:
        return  # the local modes have a person before them, not a log group
    record = {
        "tool": tool,
        "function": os.environ.get("AWS_LAMBDA_FUNCTION_NAME", ""),
        "environment_id": environment_id(),
        "invocation": request.invocation,
        "api_key_id": request.api_key_id,
        **fields,
        "_aws": {
            "Timestamp": int(time.time() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": NAMESPACE,
                    "Dimensions": [["function", "tool"]],
                    "Metrics": [{"Name": name, "Unit": unit} for name, unit in METRICS if name in fields],
                }
            ],
        },
    }
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON":
        log.info("tool call", extra=record)  # the runtime's formatter adds requestId, timestamp and level
    else:
        line = {"requestId": request.context.aws_request_id, "message": "tool call", **record}
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        sys.stdout.flush()
