"""Starts `python -m sam.local` on the echo function for a test, and asks it things."""

import contextlib
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

ROOT = Path(__file__).parents[2]
TEMPLATE = Path(__file__).parent / "functions" / "template.yaml"
SESSION = boto3.Session()  # reading AWS's service models takes longer than most tests
MODERN = "2026-07-28"
DEADLINE_S = 60.0  # how long a test waits for what must come; no test measures speed


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: Any


def _message(text: str) -> Any:
    """The JSON of a body, or that of its one server-sent event."""
    data = next((line[5:] for line in text.splitlines() if line.startswith("data:")), text)
    return json.loads(data) if data else None


def hold_against_the_model(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    """botocore drops members it does not know; AWS sends none."""
    shape, body = operation_model.output_shape, response_dict["body"]
    if shape is None or response_dict["status_code"] >= 300 or "payload" in shape.serialization or not body:
        return
    faults = list(_faults(shape, json.loads(body), operation_model.name))
    assert not faults, faults


def _faults(shape: Any, value: Any, where: str) -> Iterator[str]:
    kinds: dict[str, Any] = {
        "structure": dict, "map": dict, "list": list, "string": str, "character": str, "boolean": bool,
        "integer": int, "long": int, "double": int | float, "float": int | float,
    }  # fmt: skip
    wanted = kinds.get(shape.type_name, object)
    if not isinstance(value, wanted) or (isinstance(value, bool) and shape.type_name != "boolean"):
        yield f"{where} is {value!r}, not a {shape.type_name}"
    elif shape.type_name == "structure":
        members = {shape.members[name].serialization.get("name", name): shape.members[name] for name in shape.members}
        for name, inner in value.items():
            if name in members:
                yield from _faults(members[name], inner, f"{where}.{name}")
            else:
                yield f"{where}.{name} is not in the model"
    elif shape.type_name == "list":
        for inner in value:
            yield from _faults(shape.member, inner, f"{where}[]")
    elif shape.type_name == "map":
        for inner in value.values():
            yield from _faults(shape.value, inner, f"{where}{{}}")
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{where} is {value!r}, none of {shape.enum}"


class LocalStack:
    """A running stack. `said` is what it wrote to stderr before it was ready."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        assert process.stdout is not None
        line = process.stdout.readline()
        self.process = process
        self.said = errors.read_text()
        assert line, f"the stack did not start: {self.said}"
        self.ready: dict[str, str] = json.loads(line)

    @property
    def isolated(self) -> bool:
        return "no own mounts" not in self.said

    def call(self, ask: Any = None, *, method: str = "POST", path: str | None = None, **headers: str) -> Answer:
        url = urlsplit(self.ready["endpoint"])
        connection = http.client.HTTPConnection(url.netloc, timeout=DEADLINE_S)
        with contextlib.closing(connection):
            body = None if ask is None else json.dumps(ask)
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path or url.path, body, named)
            response = connection.getresponse()
            text = response.read()
            return Answer(response.status, response.headers, _message(text.decode()))

    def client(self, service: str, region: str = "us-east-1") -> Any:
        """A client that fails on an answer whose members are not those of the service's model."""
        client = SESSION.client(
            service,
            endpoint_url=self.ready["aws_endpoint_url"],
            region_name=region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}),
        )
        if service in ("lambda", "logs", "cloudwatch"):  # the ones that are ours, and speak JSON
            client.meta.events.register(f"before-parse.{service}", hold_against_the_model)
        return client

    def log_lines(self, until: str, count: int = 1) -> list[str]:
        """Messages of the log group in order, once `count` of them hold `until`."""
        logs = self.client("logs")
        deadline = time.monotonic() + DEADLINE_S
        while True:
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=self.ready["log_group"])
            messages = [event["message"] for page in pages for event in page["events"]]
            if sum(until in message for message in messages) >= count:
                return messages
            assert time.monotonic() < deadline, f"no {until!r} in {messages}"
            time.sleep(0.02)

    def settled_log(self) -> list[str]:
        """Messages of the log group in order, once every START has its REPORT (text format)."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            messages = self.log_lines("START")
            if sum(line.startswith("START") for line in messages) == sum(
                line.startswith("REPORT") for line in messages
            ):
                return messages
            assert time.monotonic() < deadline, f"a call without its report in {messages}"
            time.sleep(0.02)

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(with_signal)
        return self.process.wait(timeout=DEADLINE_S)


def archive(source: str) -> bytes:
    """A function's code: this as its handler.py, zipped."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        made.writestr("handler.py", source)
    return data.getvalue()


def publish_what_cannot_start(lam: Any, source: str) -> Any:
    """Makes the function `broken` of this and version 1 of it, with SnapStart; its configuration once it is settled."""
    lam.create_function(
        FunctionName="broken", Runtime="python3.12", Handler="handler.handler", Role="arn:aws:iam::123456789012:role/r",
        Code={"ZipFile": archive(source)}, SnapStart={"ApplyOn": "PublishedVersions"},
    )  # fmt: skip
    active = lam.get_waiter("function_active_v2")
    active.config.delay = 0.05
    active.wait(FunctionName="broken")
    lam.publish_version(FunctionName="broken")
    deadline = time.monotonic() + DEADLINE_S
    while (told := lam.get_function_configuration(FunctionName="broken:1"))["State"] == "Pending":
        assert time.monotonic() < deadline
    return told


Start = Callable[..., LocalStack]  # the fixture `start`


@contextlib.contextmanager
def local_stack(tmp_path: Path, *options: str) -> Iterator[LocalStack]:
    errors = tmp_path / "stderr"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "P_FN_"))}
    command = [sys.executable, "-m", "sam.local", "--port", "0", "--template", str(TEMPLATE), *options]
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True,
            env={**environment, "TMPDIR": str(tmp_path)},
        ) as process,
    ):  # fmt: skip
        try:
            yield LocalStack(process, errors)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=DEADLINE_S)
                finally:
                    process.kill()


def call(stack: LocalStack, code: str, *, modern: bool = False, slash: bool = True) -> tuple[Answer, dict[str, Any]]:
    """`execute_python` with no handshake before it; returns the answer and the structured result."""
    params: dict[str, Any] = {"name": "execute_python", "arguments": {"code": code}}
    headers = {"Content_Type": "application/json", "Accept": "application/json, text/event-stream"}
    if modern:
        meta = "io.modelcontextprotocol"
        params["_meta"] = {f"{meta}/protocolVersion": MODERN, f"{meta}/clientCapabilities": {}}
        headers |= {"MCP_Protocol_Version": MODERN, "Mcp_Method": "tools/call", "Mcp_Name": "execute_python"}
    path = "/dev/lambda/mcp/" if slash else "/dev/lambda/mcp"
    ask = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}
    answer = stack.call(ask, path=path, **headers)
    return answer, (answer.body or {}).get("result", {}).get("structuredContent", {})
