"""Lambda entry point: `handler.handler`. Everything slow happens here, at import, in the init phase.

Credentials are scrubbed first, before anything copies them: the function calls no AWS API, and user code runs under
the same uid.
"""

from __future__ import annotations

from interpreter.confinement import close_own_memory, scrub_secrets
from lean import trim

scrub_secrets()
close_own_memory()
trim()

import contextlib  # noqa: E402
from typing import Any  # noqa: E402

from mangum import Mangum  # noqa: E402

from app import build_app  # noqa: E402
from request import Request, process_age_ms, renew_environment_id  # noqa: E402
from settings import make_interpreter  # noqa: E402
from tools import Tools  # noqa: E402

interpreter = make_interpreter()
_app = build_app(Tools(lambda: interpreter))
_invocations = 0
_init_ms: float | None = process_age_ms()


async def _with_request(scope: Any, receive: Any, send: Any) -> None:
    identity = (scope["aws.event"].get("requestContext") or {}).get("identity") or {}
    request = Request(scope["aws.context"], _invocations, identity.get("apiKeyId"))
    if _invocations == 1 and _init_ms is not None:
        request.timings["init"] = _init_ms
    await _app({**scope, "interpreter.request": request}, receive, send)


def _resumed() -> None:
    """After a restore (SnapStart). The time the init took is not this environment's: its snapshot was made long ago."""
    global _init_ms
    _init_ms = None
    renew_environment_id()


with contextlib.suppress(ImportError):  # a part of Lambda's runtime, and of awslambdaric
    from snapshot_restore_py import register_after_restore  # type: ignore[import-untyped]

    register_after_restore(_resumed)

_mangum = Mangum(_with_request, lifespan="off")


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer one API Gateway proxy event (REST v1 or HTTP v2 payload)."""
    global _invocations
    _invocations += 1
    _drop_bad_ports(event)
    return _mangum(event, context)


def _drop_bad_ports(event: dict[str, Any]) -> None:
    """Leave out a Host or X-Forwarded-Port whose port is no number, of which Mangum would make an exception."""
    for headers in (event.get("headers") or {}, event.get("multiValueHeaders") or {}):
        for name in [name for name in headers if name.lower() in ("host", "x-forwarded-port")]:
            value = headers[name] if isinstance(headers[name], str) else headers[name][0]
            _, colon, port = value.partition(":") if name.lower() == "host" else ("", ":", value)
            if colon and not (port.isascii() and port.isdigit()):
                del headers[name]
