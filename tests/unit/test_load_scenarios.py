"""Answers are judged by what they say, in both encodings; requests carry what their era asks for."""

import json
from typing import Any

import pytest

from load.scenarios import ERAS, META_ERA, RPC_ID, SCENARIOS, build_request, judge_answer, parse_server_timing


def rpc(result: Any = None, **other: Any) -> dict[str, Any]:
    message = {"jsonrpc": "2.0", "id": RPC_ID, **other}
    return message if result is None else {**message, "result": result}


def ran(stdout: str = "", **other: Any) -> dict[str, Any]:
    return {"structuredContent": {"success": True, "stdout": stdout, **other}, "content": [], "isError": False}


def failed(name: str, message: str = "no", type: str = "runtime", violations: tuple[str, ...] = ()) -> dict[str, Any]:
    error = {"type": type, "name": name, "message": message}
    structured = {"success": False, "result": f"{name}: {message}", "error": error, "violations": list(violations)}
    return {"structuredContent": structured, "content": [], "isError": True}


IMAGE = {"type": "image", "mimeType": "image/png", "data": "iVBORw0KGgoAAAANSUhEUgAAA"}
PACKAGES = {"structuredContent": {"packages": [{"name": n} for n in ("numpy", "pandas", "matplotlib")]}, "content": []}
INFO = {"success": True, "python_version": "3.12.1", "packages": {"numpy": "2"}}
TEXT_ONLY = {"content": [{"type": "text", "text": json.dumps({"success": True, "stdout": "计算结果: 5\n"})}]}
TOOLS = [{"name": n} for n in ("execute_python", "list_preinstalled_packages", "get_environment_info")]


@pytest.mark.parametrize(
    ("scenario", "message", "outcome"),
    [
        pytest.param("print", rpc(ran("计算结果: 5\n")), "ok", id="print"),
        pytest.param("print", rpc(TEXT_ONLY), "ok", id="print-text-block-only"),
        pytest.param("print", rpc(ran("计算结果: 6\n")), "wrong_answer", id="print-wrong-sum"),
        pytest.param("print", rpc(ran("")), "wrong_answer", id="print-nothing"),
        pytest.param("print", rpc({"content": []}), "wrong_answer", id="print-empty-result"),
        pytest.param("print", rpc(failed("MemoryError")), "tool_error", id="200-with-a-tool-error"),
        pytest.param("print", rpc({**ran("计算结果: 5"), "isError": True}), "tool_error", id="right-text-but-isError"),
        pytest.param("print", rpc(error={"code": -32603, "message": "x"}), "rpc_error", id="rpc-error"),
        pytest.param("print", {**rpc(ran("计算结果: 5")), "id": 99}, "rpc_error", id="answer-to-another-request"),
        pytest.param("print", rpc(), "rpc_error", id="neither-result-nor-error"),
        pytest.param("numpy", rpc(ran("333283335000\n")), "ok", id="numpy"),
        pytest.param("numpy", rpc(ran("333283335001\n")), "wrong_answer", id="numpy-off-by-one"),
        pytest.param("pandas", rpc(ran("1783929\n")), "ok", id="pandas"),
        pytest.param("figure", rpc({**ran(), "content": [IMAGE]}), "ok", id="figure"),
        pytest.param("figure", rpc(ran()), "wrong_answer", id="figure-without-image"),
        pytest.param(
            "figure", rpc({**ran(), "content": [{**IMAGE, "data": "AAAA"}]}), "wrong_answer", id="figure-no-png"
        ),
        pytest.param("packages", rpc(PACKAGES), "ok", id="packages"),
        pytest.param("packages", rpc({"structuredContent": {"packages": []}}), "wrong_answer", id="packages-missing"),
        pytest.param("info", rpc({"structuredContent": INFO}), "ok", id="info"),
        pytest.param("info", rpc({"structuredContent": {**INFO, "packages": {}}}), "wrong_answer", id="info-without"),
        pytest.param("no-package", rpc(failed("NotFound", type="package")), "ok", id="package-that-is-not-there"),
        pytest.param("no-package", rpc(ran("")), "wrong_answer", id="installed-what-does-not-exist"),
        pytest.param("tools", rpc({"tools": TOOLS}), "ok", id="tools"),
        pytest.param("tools", rpc({"tools": TOOLS[:2]}), "wrong_answer", id="tools-missing-one"),
        pytest.param("error", rpc(failed("ZeroDivisionError")), "ok", id="expected-error"),
        pytest.param("error", rpc(failed("NameError")), "wrong_answer", id="another-error"),
        pytest.param("error", rpc(ran("")), "wrong_answer", id="error-answered-as-success"),
        pytest.param("hold", rpc(ran("held\n")), "ok", id="hold"),
        pytest.param("install", rpc(ran("['2', '3']\n")), "ok", id="install"),
        pytest.param("install", rpc(failed("NoNetwork")), "tool_error", id="nothing-installed"),
        pytest.param("timeout", rpc(failed("TimeoutError", type="timeout")), "ok", id="expected-timeout"),
        pytest.param("timeout", rpc(failed("MemoryError", type="memory")), "wrong_answer", id="another-end"),
        pytest.param("timeout", rpc(ran("")), "wrong_answer", id="timeout-answered-as-success"),
        pytest.param(
            "blocked", rpc(failed("SecurityError", type="security", violations=("os.system",))), "ok", id="blocked"
        ),
        pytest.param("blocked", rpc(failed("SecurityError", type="security")), "wrong_answer", id="blocked-unnamed"),
        pytest.param("blocked", rpc(ran("0")), "wrong_answer", id="not-blocked"),
    ],
)
@pytest.mark.parametrize("encoding", ["application/json", "text/event-stream; charset=utf-8"])
def test_judging(scenario: str, message: dict[str, Any], outcome: str, encoding: str) -> None:
    text = json.dumps(message)
    body = text if encoding == "application/json" else f": ping\r\n\r\nevent: message\r\ndata: {text}\r\n\r\n"
    verdict = judge_answer(SCENARIOS[scenario], 200, encoding, body.encode())
    assert verdict.outcome == outcome
    assert bool(verdict.error) == (outcome != "ok")


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        pytest.param(500, b"{}", "http_error", id="500"),
        pytest.param(202, b"", "http_error", id="202-accepts-without-answering"),
        pytest.param(307, b"", "http_error", id="redirect-is-not-followed"),
        pytest.param(200, b"<html>", "rpc_error", id="html"),
        pytest.param(200, b"", "rpc_error", id="empty"),
        pytest.param(200, b"[]", "rpc_error", id="batch"),
    ],
)
def test_answers_that_are_no_answers(status: int, body: bytes, outcome: str) -> None:
    assert judge_answer(SCENARIOS["print"], status, "application/json", body).outcome == outcome


def test_event_data_over_several_lines_is_joined() -> None:
    lines = json.dumps(rpc(ran("计算结果: 5")), indent=1).splitlines()
    body = "event: message\n" + "".join(f"data: {line}\n" for line in lines) + "\n"
    assert judge_answer(SCENARIOS["print"], 200, "text/event-stream", body.encode()).outcome == "ok"


def test_a_notification_before_the_answer_is_passed_over() -> None:
    note = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})
    body = f"data: {note}\n\ndata: {json.dumps(rpc(ran('计算结果: 5')))}\n\n"
    assert judge_answer(SCENARIOS["print"], 200, "text/event-stream", body.encode()).outcome == "ok"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_requests_of_each_era(name: str, era: str) -> None:
    request = build_request(SCENARIOS[name], era)
    message = json.loads(request.body)
    meta = message["params"].get("_meta")
    assert request.headers["MCP-Protocol-Version"] == era
    assert "x-api-key" not in request.headers
    if era != META_ERA:
        assert meta is None
        return
    assert meta["io.modelcontextprotocol/protocolVersion"] == era
    assert request.headers["Mcp-Method"] == message["method"]
    assert request.headers.get("Mcp-Name") == message["params"].get("name")


def test_the_key_goes_into_its_header_only() -> None:
    request = build_request(SCENARIOS["print"], ERAS[0], "s3cret")
    assert request.headers["x-api-key"] == "s3cret"
    assert b"s3cret" not in request.body


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(
            "init;dur=812.3, install;dur=0, exec;dur=12.4", {"init": 812.3, "install": 0, "exec": 12.4}, id="all"
        ),
        pytest.param("exec;dur=1", {"exec": 1.0}, id="one"),
        pytest.param('cache;desc="a, b";dur=2, miss', {"cache": 2.0}, id="no-duration-left-out"),
        pytest.param("", {}, id="empty"),
        pytest.param("exec;dur=1.2.3", {}, id="no-number"),
    ],
)
def test_server_timing(value: str, expected: dict[str, float]) -> None:
    assert parse_server_timing(value) == expected
