"""What is asked of the endpoint, and what counts as the right answer.

Builds the request bytes once per scenario and era, reads JSON and SSE bodies, and judges each answer. A 200 is not a
success: the JSON-RPC result, the tool's own verdict and the value asked for are all looked at. It must not do I/O.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from load.rows import Outcome

HANDSHAKE_ERA: Final = "2025-11-25"
META_ERA: Final = "2026-07-28"
ERAS: Final = (HANDSHAKE_ERA, META_ERA)

_META = {
    "io.modelcontextprotocol/protocolVersion": META_ERA,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "load", "version": "1"},
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one answer is judged; `error` is a short sentence, empty for "ok"."""

    outcome: Outcome
    error: str = ""


OK: Final = Verdict("ok")

type Expectation = Callable[[Mapping[str, Any]], Verdict]
"""Judges the `result` object of a JSON-RPC answer."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A question with a known answer. `tool` is None for `tools/list`."""

    name: str
    tool: str | None
    arguments: Mapping[str, Any]
    expect: Expectation


@dataclass(frozen=True, slots=True)
class Request:
    """What goes on the wire for one scenario in one era. The JSON-RPC id is always `RPC_ID`."""

    body: bytes
    headers: Mapping[str, str]


RPC_ID: Final = 2
"""Every request of a run has this id: requests are independent HTTP exchanges, so nothing is told apart by it."""


def _structured(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tool's object: structuredContent, or else the JSON of the first text block. Empty when there is neither."""
    structured = result.get("structuredContent")
    if isinstance(structured, dict):
        return structured
    for block in result.get("content") or ():
        if isinstance(block, dict) and block.get("type") == "text":
            try:
                parsed = json.loads(block.get("text") or "")
            except ValueError:
                return {}
            return parsed if isinstance(parsed, dict) else {}
    return {}


def _tool_failure(result: Mapping[str, Any], answer: Mapping[str, Any]) -> Verdict | None:
    if not result.get("isError") and answer.get("success") is not False:
        return None
    error = answer.get("error") if isinstance(answer.get("error"), dict) else {}
    assert isinstance(error, dict)
    said = error.get("message") or answer.get("result") or _first_text(result) or "no reason given"
    kind = error.get("name") or error.get("type") or "tool error"
    return Verdict("tool_error", _short(f"{kind}: {said}"))


def _first_text(result: Mapping[str, Any]) -> str:
    for block in result.get("content") or ():
        if isinstance(block, dict) and block.get("type") == "text":
            return str(block.get("text"))
    return ""


def _prints(expected: str) -> Expectation:
    def judge(result: Mapping[str, Any]) -> Verdict:
        answer = _structured(result)
        if failure := _tool_failure(result, answer):
            return failure
        if answer.get("success") is not True:
            return Verdict("wrong_answer", "the result has no success: true")
        stdout = answer.get("stdout")
        if not isinstance(stdout, str) or stdout.strip() != expected:
            return Verdict("wrong_answer", _short(f"stdout is {stdout!r}, not {expected!r}"))
        return OK

    return judge


def _draws(result: Mapping[str, Any]) -> Verdict:
    answer = _structured(result)
    if failure := _tool_failure(result, answer):
        return failure
    for block in result.get("content") or ():
        if isinstance(block, dict) and block.get("type") == "image":
            # base64 of the PNG signature and the start of its IHDR chunk
            if block.get("mimeType") == "image/png" and str(block.get("data")).startswith("iVBORw0KGgoAAAANSUhEUg"):
                return OK
            return Verdict("wrong_answer", f"the image block is no PNG: mimeType {block.get('mimeType')!r}")
    return Verdict("wrong_answer", "no image block in the result")


def _lists_packages(result: Mapping[str, Any]) -> Verdict:
    answer = _structured(result)
    if failure := _tool_failure(result, answer):
        return failure
    text = json.dumps(answer) if answer else _first_text(result)
    missing = [name for name in ("numpy", "pandas", "matplotlib") if name not in text]
    return Verdict("wrong_answer", f"the package list lacks {', '.join(missing)}") if missing else OK


def _describes(result: Mapping[str, Any]) -> Verdict:
    answer = _structured(result)
    if failure := _tool_failure(result, answer):
        return failure
    missing = [name for name in ("python_version", "packages") if not answer.get(name)]
    return Verdict("wrong_answer", f"the environment's description lacks {', '.join(missing)}") if missing else OK


def _raises(error_name: str) -> Expectation:
    def judge(result: Mapping[str, Any]) -> Verdict:
        answer = _structured(result)
        error = answer.get("error")
        if answer.get("success") is not False or not isinstance(error, dict):
            return Verdict("wrong_answer", f"code that raises {error_name} was answered as a success")
        if error.get("name") != error_name:
            return Verdict("wrong_answer", f"error.name is {error.get('name')!r}, not {error_name!r}")
        return OK

    return judge


def _fails(error_type: str) -> Expectation:
    """The tool's own word for why code did not end well (error.type), with its violations when it was refused."""

    def judge(result: Mapping[str, Any]) -> Verdict:
        answer = _structured(result)
        error = answer.get("error")
        if answer.get("success") is not False or not isinstance(error, dict):
            return Verdict("wrong_answer", f"code that must fail as {error_type} was answered as a success")
        if error.get("type") != error_type:
            return Verdict("wrong_answer", _short(f"error.type is {error.get('type')!r}, not {error_type!r}: {error}"))
        if error_type == "security" and not answer.get("violations"):
            return Verdict("wrong_answer", "a refused operation names no violation")
        return OK

    return judge


def _lists_tools(result: Mapping[str, Any]) -> Verdict:
    names = {tool.get("name") for tool in result.get("tools") or () if isinstance(tool, dict)}
    missing = sorted({"execute_python", "list_preinstalled_packages", "get_environment_info"} - names)
    return Verdict("wrong_answer", f"tools/list lacks {', '.join(missing)}") if missing else OK


def _python(name: str, code: str, expect: Expectation) -> Scenario:
    return Scenario(name, "execute_python", {"code": code}, expect)


_NUMPY = """\
import numpy as np
a = np.arange(10_000, dtype=np.int64).reshape(100, 100)
print(int(np.trace(a @ a.T)))
"""

_PANDAS = """\
import pandas as pd
frame = pd.DataFrame({"key": [i % 7 for i in range(5000)], "value": range(5000)})
print(frame.groupby("key")["value"].sum().to_dict()[3])
"""

_FIGURE = """\
import matplotlib.pyplot as plt
plt.plot([0, 1, 2, 3], [0, 1, 4, 9])
plt.title("squares")
plt.show()
"""

_INSTALL = """\
from tabulate import tabulate
print(tabulate([[2, 3]], tablefmt="tsv").split())
"""
"""One small wheel without dependencies that no deployment has preinstalled; each environment installs it once."""

HOLD_S: Final = 1.5
"""How long the hold scenario keeps its environment busy: more than a burst's spread, 0.4 s for 1,000 (measured)."""

SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        _python("print", 'result = 2 + 3\nprint(f"计算结果: {result}")', _prints("计算结果: 5")),
        # sum of the squares of 0..9999
        _python("numpy", _NUMPY, _prints(str(sum(i * i for i in range(10_000))))),
        _python("pandas", _PANDAS, _prints(str(sum(range(3, 5000, 7))))),
        _python("figure", _FIGURE, _draws),
        Scenario("packages", "list_preinstalled_packages", {}, _lists_packages),
        Scenario("info", "get_environment_info", {}, _describes),
        Scenario("tools", None, {}, _lists_tools),
        _python("error", "1 / 0", _raises("ZeroDivisionError")),
        _python("blocked", 'import os\nos.system("true")', _fails("security")),
        Scenario("install", "execute_python", {"code": _INSTALL, "requirements": ["tabulate"]}, _prints("['2', '3']")),
        Scenario(
            "no-package",
            "execute_python",
            {"code": "", "requirements": ["load-test-package-that-does-not-exist"]},
            _fails("package"),
        ),
        # longer than any Lambda function may run; the plan's request_timeout_s must outlast the endpoint's own limit
        _python("timeout", "import time\ntime.sleep(1000)", _fails("timeout")),
        _python("hold", f'import time\ntime.sleep({HOLD_S})\nprint("held")', _prints("held")),
    )
}


def build_request(scenario: Scenario, era: str, api_key: str | None = None) -> Request:
    """The request of a scenario in an era: 2025-11-25 bare, without a handshake; 2026-07-28 with its `_meta`."""
    method = "tools/list" if scenario.tool is None else "tools/call"
    params: dict[str, Any] = {}
    if scenario.tool is not None:
        params = {"name": scenario.tool, "arguments": dict(scenario.arguments)}
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": era,
    }
    if era == META_ERA:
        params["_meta"] = _META
        headers["Mcp-Method"] = method
        if scenario.tool is not None:
            headers["Mcp-Name"] = scenario.tool
    if api_key:
        headers["x-api-key"] = api_key
    message = {"jsonrpc": "2.0", "id": RPC_ID, "method": method, "params": params}
    return Request(json.dumps(message, ensure_ascii=False).encode(), headers)


def judge_answer(scenario: Scenario, status: int, content_type: str, body: bytes) -> Verdict:
    """Whether an HTTP answer is the right one for the scenario."""
    if status != 200:
        return Verdict("http_error", _short(f"HTTP {status}: {body[:200].decode(errors='replace')}").rstrip(": "))
    message = _read_message(content_type, body)
    if message is None:
        return Verdict("rpc_error", _short(f"no JSON-RPC answer in {len(body)} bytes of {content_type or 'no type'}"))
    error = message.get("error")
    if error is not None:
        said = f"{error.get('code')} {error.get('message')}" if isinstance(error, dict) else repr(error)
        return Verdict("rpc_error", _short(f"JSON-RPC error {said}"))
    result = message.get("result")
    if not isinstance(result, dict):
        return Verdict("rpc_error", "the JSON-RPC answer has neither result nor error")
    return scenario.expect(result)


def _read_message(content_type: str, body: bytes) -> Mapping[str, Any] | None:
    """The answer to our id, from a JSON body or an event stream; None when there is none."""
    payloads = _sse_payloads(body) if content_type.startswith("text/event-stream") else [body]
    for payload in payloads:
        try:
            message = json.loads(payload)
        except ValueError:
            continue
        if isinstance(message, dict) and message.get("id") == RPC_ID and ("result" in message or "error" in message):
            return message
    return None


def _sse_payloads(body: bytes) -> list[bytes]:
    """The data of each event; the lines of one event are joined by newlines, as the HTML standard, §9.2.6, says."""
    payloads: list[bytes] = []
    data: list[bytes] = []
    for line in body.splitlines():
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            payloads.append(b"\n".join(data))
            data = []
    if data:
        payloads.append(b"\n".join(data))
    return payloads


_ENTRY = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*")+')
_DURATION = re.compile(r';\s*dur\s*=\s*"?([0-9]+(?:\.[0-9]+)?)"?\s*(?:;|$)')


def parse_server_timing(value: str) -> dict[str, float]:
    """`init;dur=812.3, exec;dur=12.4` as {"init": 812.3, "exec": 12.4}; entries without a duration are left out."""
    found: dict[str, float] = {}
    for entry in _ENTRY.findall(value) if '"' in value else value.split(","):
        duration = _DURATION.search(entry)
        if duration:
            found[entry.partition(";")[0].strip()] = float(duration[1])
    return found


def _short(text: str) -> str:
    """One line of at most 300 characters, for a row's error."""
    return " ".join(text.split())[:300]
