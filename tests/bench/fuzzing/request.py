"""The request path under hostile events: whatever API Gateway may hand over, `handler.handler` must answer in order.

The interpreter is the real one but for its processes: arguments are decoded, files laid out and requirements judged,
and then an end made up beforehand is completed. No code of a request is ever run.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import random
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from conformance import schemas
from tests.bench.fuzzing import expect
from tests.bench.fuzzing.vary import vary

ROOT = Path(__file__).parents[3]
SEEDS = ROOT / "tests" / "bench" / "fuzz_corpus" / "request"
INSTRUMENTED = ["app", "guard", "handler", "request", "tools", "telemetry", "interpreter", "mangum", "mcp", "packaging"]
PLAIN_EVERY = 256
WARM_RUNS = 2048
GROWTH_MB = 200
OWN_FAULT = "failed on its own account"
MODERN = "2026-07-28"


class Context:
    """Of awslambdaric's what the function uses."""

    aws_request_id = "00000000-0000-0000-0000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


@cache
def fixture() -> dict[str, Any]:
    event: dict[str, Any] = json.loads((ROOT / "tests" / "events" / "apigw-rest-post.json").read_text())
    return event


def event_of(data: bytes) -> dict[str, Any]:
    """The event that `data` says, as API Gateway would shape it; bytes that are no JSON object are a body."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or "event" not in told or not isinstance(told["event"], dict):
        return _event("POST", "/lambda/mcp/", {}, base64.b64encode(data).decode(), binary=True)
    said = told["event"]
    body, binary = said.get("body"), said.get("isBase64Encoded") is True
    if not isinstance(body, str):
        body = None if body is None else json.dumps(body)
    if body is not None:
        raw = body.encode("utf-8", "replace")
        body = base64.b64encode(raw).decode() if binary else raw.decode()
    headers = said.get("headers")
    method, path = said.get("httpMethod"), said.get("path")
    return _event(
        method if isinstance(method, str) and method.isalpha() and method.isascii() else "POST",
        path if isinstance(path, str) and path.startswith("/") and path.isascii() else "/lambda/mcp/",
        headers if isinstance(headers, dict) else {},
        body,
        binary=binary,
    )


def _event(method: str, path: str, headers: Mapping[str, Any], body: str | None, *, binary: bool) -> dict[str, Any]:
    kept: dict[str, str] = {}
    for name, value in headers.items():
        text = str(value).encode("latin-1", "replace").decode("latin-1")
        if name.replace("-", "").isalnum() and name.isascii() and not set(text) & {"\r", "\n", "\0"}:
            kept[name] = text
    named = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json", "Host": "h", **kept}
    return {
        **fixture(),
        "httpMethod": method,
        "path": path,
        "resource": path,
        "headers": named,
        "multiValueHeaders": {name: [value] for name, value in named.items()},
        "body": body,
        "isBase64Encoded": binary,
    }


def varied(data: bytes, source: random.Random) -> bytes:
    """Another event: its message varied as a tree, or the event around it."""
    try:
        told = json.loads(data)
        body = told["event"]["body"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return vary(data, source)
    if isinstance(body, str) and source.random() < 0.8:
        told["event"]["body"] = vary(body.encode("utf-8", "surrogatepass"), source).decode("utf-8", "replace")
        return json.dumps(told).encode()
    return vary(data, source)


def prepare() -> Any:
    """Import the function as Lambda does, with an interpreter that starts no process; gives its handler module."""
    sys.path.insert(0, str(ROOT / "function"))
    os.environ.setdefault("AWS_LAMBDA_FUNCTION_NAME", "fuzzed")
    # Records of calls go where Lambda's would, by the encoding that Lambda has.
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    import settings
    from interpreter import confinement, engine, kernel, outcome, packages, watch
    from interpreter.confinement import Limits
    from interpreter.files import collect, left, write
    from interpreter.sessions import Sessions

    class NoIndex(packages.PackageInstaller):
        def install(self, requirements: Sequence[str], *, timeout_s: float = 0.0) -> packages.Overlay:
            missing = [one for one in packages.parse(requirements) if not packages.satisfied(one)]
            for one in missing:
                self._check_allowed(one.name, asked_for=True)
            if missing:
                raise packages.PackageError("NoNetwork", f"{missing[0]} was not asked for")
            return packages.Overlay()

    class Standing(engine.Interpreter):
        def __init__(self) -> None:
            self.limits, self.network, self.hook, self.alone = Limits(), False, True, False
            self.kernel = kernel.probe()
            self.around = Path(tempfile.mkdtemp())
            self.scratch = self.around / "scratch"
            self.scratch.mkdir()
            self.sessions = Sessions(0, lambda _session: None)
            self.packages = NoIndex(self.scratch / "packages")

        def _run_afresh(self, call: Any, _session_id: str | None) -> outcome.Completed:
            run_dir = tempfile.mkdtemp(prefix="run-", dir=self.scratch)
            try:
                write(run_dir, call.given)
                listed, _more = left(run_dir, {})
                returned, _problems = collect(run_dir, call.return_files)
                if call.on_stdout is not None:
                    call.on_stdout(call.code)
                return outcome.complete(_ended(watch, call.code), call.timeout_s, 0.0, listed, returned)
            finally:
                confinement.remove(run_dir)
                assert os.listdir(self.around) == ["scratch"], "a file was laid outside the run's directory"
                assert os.listdir(self.scratch) == [], "something of a run stays"

    settings.make_interpreter = Standing  # type: ignore[assignment]
    import handler

    return handler


def _ended(watch: Any, code: str) -> Any:
    """A child that printed its code and reported it as its result."""
    stream = watch.Stream
    report: dict[str, Any] = {"result": code[:1000].encode("utf-8", "replace").decode(), "error": None, "warnings": "",
              "outputs": [], "truncated": []}  # fmt: skip
    ended = watch.Watched(stdout=stream(1 << 18), stderr=stream(1 << 18), report=stream(1 << 23), trace=stream(1 << 16))
    ended.stdout.feed(code.encode("utf-8", "surrogatepass"))
    ended.report.feed(json.dumps(report).encode())
    ended.pid, ended.status = 1, 0
    return ended


def messages(answer: Mapping[str, Any]) -> Iterator[Any]:
    """Each JSON-RPC message of an answer, by its content type."""
    kind = answer["headers"].get("content-type", "")
    body = base64.b64decode(answer["body"]).decode() if answer["isBase64Encoded"] else answer["body"]
    if not body:
        expect(answer["statusCode"] in (202, 405), "no body", answer)
    elif kind.startswith("application/json"):
        found = json.loads(body)
        yield from found if isinstance(found, list) else [found]
    elif kind.startswith("text/event-stream"):
        for line in body.replace("\r\n", "\n").split("\n"):
            if line.startswith("data:") and line[5:].strip():
                yield json.loads(line[5:])
    else:
        expect(answer["statusCode"] in (404, 405), "text where JSON is due", (kind, body))


class Surface:
    """`one` holds one input to every property; `seeds` and `varied` say what is tried."""

    seeds = SEEDS
    varied = staticmethod(varied)

    def __init__(self) -> None:
        self.handler = prepare()
        from tools import ARGUMENTS, RESULTS, schema

        self.outputs = {name: jsonschema.Draft202012Validator(schema(RESULTS[name])) for name in ARGUMENTS}
        self.runs = 0
        self.at_rest: tuple[int, int] | None = None
        self.rss_kb = 0

    def one(self, data: bytes) -> None:
        self.runs += 1
        event = event_of(data)
        answer = self.handler.handler(event, Context())
        self.check(event, answer)
        if self.runs % PLAIN_EVERY == 0:
            self.check_plain()

    def check(self, event: Mapping[str, Any], answer: Any) -> None:
        expect(isinstance(answer, dict) and isinstance(answer.get("statusCode"), int), "no proxy answer", answer)
        status, headers = answer["statusCode"], answer["headers"]
        expect(200 <= status < 500, "a fault of the server", answer)
        expect(all(isinstance(one, str) for pair in headers.items() for one in pair), "headers", headers)
        expect(isinstance(answer["body"], str), "no text for a body", answer)
        if event["path"].endswith("/health"):
            return
        given, answered = self.asked(event), 0
        waiting = [one for one in given if isinstance(one, dict)]
        for message in messages(answer):
            expect(isinstance(message, dict) and message.get("jsonrpc") == "2.0", "no JSON-RPC message", message)
            if "method" in message:
                expect("id" not in message, "a request to the client", message)
                continue
            answered += 1
            self.check_response(waiting, event, message)
        expect(answered <= max(1, len(given)), "more responses than requests", answer["body"])

    @staticmethod
    def asked(event: Mapping[str, Any]) -> list[Any]:
        """The message, or those of a batch."""
        try:
            given = event["body"] or ""
            body = base64.b64decode(given) if event["isBase64Encoded"] else given.encode()
            found = json.loads(body.decode())
        except (ValueError, RecursionError):
            return []
        return found if isinstance(found, list) else [found]

    def check_response(
        self, waiting: list[dict[str, Any]], event: Mapping[str, Any], message: Mapping[str, Any]
    ) -> None:
        """Holds a response against the request of its id, which is taken from those that wait."""
        expect(("result" in message) != ("error" in message), "neither result nor error, or both", message)
        expect(OWN_FAULT not in json.dumps(message), "a fault of ours", message)
        if "error" in message:
            error = message["error"]
            expect(isinstance(error.get("code"), int) and isinstance(error.get("message"), str), "error", error)
            expect(error["code"] != -32603, "an internal error", message)
        asked = next((one for one in waiting if one.get("id") == message.get("id")), None)
        if asked is None:
            expect("error" in message and message.get("id") is None, "another id", message)
            return
        waiting.remove(asked)
        if "error" in message:
            return
        method, result = str(asked.get("method")), message["result"]
        told = next((value for name, value in event["headers"].items() if name.lower() == "mcp-protocol-version"), "")
        revision = MODERN if told.strip() == MODERN else "2025-11-25"
        fault = schemas.result_fault(revision, method, result)
        expect(fault is None, "a result against its schema", fault)
        if method == "tools/call" and result.get("structuredContent") is not None:
            name = asked["params"]["name"]
            faults = [fault.message for fault in self.outputs[name].iter_errors(result["structuredContent"])]
            expect(not faults, f"{name} against its output schema", faults)

    def check_plain(self) -> None:
        """An ordinary call works as ever, and nothing has piled up."""
        arguments = {"name": "execute_python", "arguments": {"code": "2 + 3"}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": arguments}
        event = _event("POST", "/lambda/mcp", {}, json.dumps(body), binary=False)
        answer = self.handler.handler(event, Context())
        found = list(messages(answer))
        expect(len(found) == 1 and found[0]["result"]["structuredContent"]["result"] == "2 + 3", "plain call", answer)
        if self.runs < WARM_RUNS:
            return
        gc.collect()
        now = (len(os.listdir("/proc/self/fd")), threading.active_count())
        self.at_rest = self.at_rest or now
        expect(now <= tuple(one + 8 for one in self.at_rest), "descriptors or threads pile up", (self.at_rest, now))
        rss_kb = int(Path("/proc/self/statm").read_text().split()[1]) * 4
        self.rss_kb = self.rss_kb or rss_kb
        expect(rss_kb - self.rss_kb < GROWTH_MB << 10, "memory piles up", (self.rss_kb, rss_kb))
