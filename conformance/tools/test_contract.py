"""The three-tool contract: names, schemas, results and errors as an agent sees them."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import jsonschema
import pytest

from conformance.client import Client, Discovery
from conformance.finding import expect, expect_result, requirement
from conformance.interpreter import TOOL, Outcome, execute, need_interpreter, read_outcome
from conformance.messages import Era, modern_meta, next_id, text_blocks

ORIGINAL_KEYS = ("success", "result", "stdout", "stderr", "warnings")
THREE = (TOOL, "list_preinstalled_packages", "get_environment_info")
NO_VALUE = "Code executed successfully"
FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()\n"


@pytest.fixture(autouse=True)
def _interpreter(request: pytest.FixtureRequest, discovery: Discovery) -> None:
    """A foreign interpreter is asked only what any interpreter owes: its results are not in our words."""
    need_interpreter(discovery)
    if discovery.interpreter.foreign and request.node.get_closest_marker("any_interpreter") is None:
        pytest.skip("the three-tool contract is not claimed by a target.yaml")


@pytest.fixture
def python(client: Client, discovery: Discovery) -> "Runner":
    """Runs code on the endpoint in an era it speaks."""
    return Runner(client, discovery.call_era)


class Runner:
    """Calls the interpreter and insists on a structured result."""

    def __init__(self, client: Client, era: Era) -> None:
        self.client, self.era = client, era

    def __call__(self, code: str, **options: Any) -> Outcome:
        outcome = execute(self.client, self.era, code, **options)
        expect_result(outcome.reply)
        expect(outcome.data, "The result holds no structured content.", got=outcome.reply.result)
        return outcome


def succeeded(outcome: Outcome) -> None:
    """Expects success in both places it is told."""
    expect(outcome.data.get("success") is True, "The code did not run to its end.", expected=True, got=outcome.data)
    expect(not (outcome.reply.result or {}).get("isError"), "isError is set on a success.", got=outcome.reply.result)


def versions(node: object) -> Iterator[tuple[str, str]]:
    """Every (package, version) in a JSON value, whether told as pairs, as objects or as name==version."""
    if isinstance(node, Mapping):
        if isinstance(node.get("name"), str) and isinstance(node.get("version"), str):
            yield str(node["name"]).lower(), str(node["version"])
        for key, value in node.items():
            if isinstance(value, str):
                yield str(key).lower(), value
            else:
                yield from versions(value)
    elif isinstance(node, list):
        for value in node:
            yield from versions(value)
    elif isinstance(node, str) and "==" in node:
        name, _, version = node.partition("==")
        yield name.strip().lower(), version.strip()


@requirement("TL-16")
@pytest.mark.any_interpreter
def test_addition_prints(client: Client, discovery: Discovery) -> None:
    outcome = execute(client, discovery.call_era, "result = 2 + 3\nprint(f'計算: {result}')")
    expect_result(outcome.reply)
    expect("計算: 5" in outcome.stdout, "What was printed did not come back.", expected="計算: 5", got=outcome.stdout)


@requirement("TL-07")
@pytest.mark.any_interpreter
def test_failure_is_told(client: Client, discovery: Discovery) -> None:
    """A model must be able to see that its code failed, and how."""
    outcome = execute(client, discovery.call_era, "undefined_name_of_no_kind")
    expect_result(outcome.reply)
    told = "\n".join(text_blocks(outcome.reply.result or {}))
    expect("undefined_name_of_no_kind" in told, "The text does not name the exception.", got=told)
    flagged = (outcome.reply.result or {}).get("isError") is True
    expect(flagged, "A failed execution does not set isError.", expected=True, got=outcome.reply.result)


def call_bare(client: Client, name: str, arguments: Mapping[str, object]) -> Outcome:
    """A tools/call without handshake or version, as the deployment test makes it."""
    reply = client.tool(Era.BARE, name, arguments)
    expect_result(reply)
    return read_outcome(reply)


@requirement("EP-01", "TL-16")
@pytest.mark.smoke
def test_deployment_addition_prints(client: Client) -> None:
    code = 'result = 2 + 3\nprint(f"计算结果: {result}")'
    outcome = call_bare(client, TOOL, {"code": code})
    succeeded(outcome)
    expect(
        outcome.stdout.strip() == "计算结果: 5", "stdout is not 计算结果: 5.", expected="计算结果: 5", got=outcome.data
    )


@requirement("EP-01", "TL-10")
@pytest.mark.smoke
def test_deployment_package_list(client: Client) -> None:
    reply = client.tool(Era.BARE, "list_preinstalled_packages", {})
    result = expect_result(reply)
    listed = dict(versions(result.get("structuredContent") or [json.loads(text) for text in text_blocks(result)]))
    for name in ("numpy", "pandas", "matplotlib"):
        version = listed.get(name, "")
        expect(re.match(r"\d+\.\d+", version), f"{name} is not listed with a version.", got=listed)


@requirement("EP-01", "TL-11")
@pytest.mark.smoke
def test_deployment_environment_info(client: Client) -> None:
    reply = client.tool(Era.BARE, "get_environment_info", {})
    result = expect_result(reply)
    text = json.dumps(result.get("structuredContent") or list(text_blocks(result)))
    expect(re.search(r"3\.\d+\.\d+", text), "The environment info names no Python version.", got=text)


@requirement("TL-11")
def test_environment_info_names_confinement_layers(client: Client, discovery: Discovery) -> None:
    result = expect_result(client.tool(discovery.call_era, "get_environment_info", {}))
    told = json.dumps(result.get("structuredContent") or list(text_blocks(result))).lower()
    missing = [word for word in ("confinement", "seccomp", "landlock") if word not in told]
    expect(
        not missing,
        "The environment info does not tell which confinement layers are active.",
        expected=missing,
        got=told,
    )


@requirement("EP-02")
def test_both_path_forms_are_served_without_redirect(client: Client) -> None:
    path = client.target.endpoint.path
    other = path.rstrip("/") if path.endswith("/") else path + "/"
    for form in (path, other):
        outcome = client.call(Era.BARE, "tools/call", {"name": TOOL, "arguments": {"code": "1 + 1"}}, path=form)
        expect_result(outcome)


@requirement("TL-01")
def test_three_tools_are_listed(discovery: Discovery) -> None:
    expect(
        set(THREE) <= set(discovery.tools),
        "A tool of the contract is missing.",
        expected=THREE,
        got=list(discovery.tools),
    )


@requirement("TL-01")
def test_code_is_the_only_required_argument(discovery: Discovery) -> None:
    schema = discovery.tools[TOOL].get("inputSchema")
    assert isinstance(schema, dict)
    expect(schema.get("required") == ["code"], "Other than code is required.", expected=["code"], got=schema)
    expect(schema["properties"]["code"].get("type") == "string", "code is not a string.", got=schema)


RESULTS_OF_EVERY_KIND = [
    pytest.param("1 + 1", id="value"),
    pytest.param("print('x')", id="print"),
    pytest.param("1 / 0", id="runtime-error"),
    pytest.param("def broken(:\n    pass", id="syntax-error"),
    pytest.param("import os\nos.system('true')", id="refused"),
    pytest.param("", id="empty"),
    pytest.param(FIGURE, id="figure"),
]


@requirement("TL-02", "L26-06", "L25-06", "L26-14")
@pytest.mark.parametrize("code", RESULTS_OF_EVERY_KIND)
def test_structured_content_fits_the_output_schema(client: Client, era: Era, discovery: Discovery, code: str) -> None:
    schema = discovery.tools[TOOL].get("outputSchema")
    expect(isinstance(schema, dict), "execute_python has no outputSchema.", got=discovery.tools[TOOL])
    assert isinstance(schema, dict)
    result = expect_result(execute(client, era, code).reply)
    faults = [
        error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(result.get("structuredContent"))
    ]
    expect(
        not faults, f"structuredContent does not fit outputSchema: {faults[:1]}", got=result.get("structuredContent")
    )


@requirement("TL-02", "L26-06", "L25-06")
@pytest.mark.parametrize("name", THREE[1:])
def test_other_tools_fit_their_output_schema(client: Client, era: Era, discovery: Discovery, name: str) -> None:
    schema = discovery.tools.get(name, {}).get("outputSchema")
    expect(isinstance(schema, dict), f"{name} has no outputSchema.", got=schema)
    assert isinstance(schema, dict)
    result = expect_result(client.tool(era, name, {}))
    faults = [
        error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(result.get("structuredContent"))
    ]
    expect(
        not faults, f"structuredContent does not fit outputSchema: {faults[:1]}", got=result.get("structuredContent")
    )


@requirement("TL-03", "L26-07", "L25-07")
@pytest.mark.parametrize("code", RESULTS_OF_EVERY_KIND[:4])
def test_text_block_mirrors_structured_content(client: Client, era: Era, code: str) -> None:
    result = expect_result(execute(client, era, code).reply)
    mirrored = [json.loads(text) for text in text_blocks(result) if text.lstrip().startswith("{")]
    expect(result.get("structuredContent") in mirrored, "No text block equals structuredContent.", got=result)


@requirement("TL-04")
@pytest.mark.parametrize("code", RESULTS_OF_EVERY_KIND[:4])
def test_original_keys_are_present(python: Runner, code: str) -> None:
    data = python(code).data
    missing = [key for key in ORIGINAL_KEYS if key not in data]
    expect(not missing, "A key of the original contract is missing.", expected=ORIGINAL_KEYS, got=list(data))
    expect(isinstance(data["success"], bool), "success is not a boolean.", got=data["success"])
    for key in ORIGINAL_KEYS[1:]:
        expect(isinstance(data[key], str), f"{key} is not a string.", got=data[key])


@requirement("TL-05")
@pytest.mark.parametrize(
    ("code", "result"),
    [
        pytest.param("result = 40 + 2", "42", id="variable-result"),
        pytest.param("x = 40\nx + 2", "42", id="last-expression"),
        pytest.param("result = 1\n2", "1", id="variable-wins"),
        pytest.param("print('hello')", NO_VALUE, id="print-has-no-value"),
        pytest.param("x = 1", NO_VALUE, id="assignment-has-no-value"),
        pytest.param("", NO_VALUE, id="empty"),
        pytest.param("'te' + 'xt'", "text", id="string"),
        pytest.param("[1, 'a']", "[1, 'a']", id="list"),
    ],
)
def test_result_is_variable_then_last_expression(python: Runner, code: str, result: str) -> None:
    outcome = python(code)
    succeeded(outcome)
    got = str(outcome.data["result"])
    expect(
        got == result or (result == "text" and got == "'text'"), "result is another value.", expected=result, got=got
    )


@requirement("TL-06")
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("raise ValueError('stop')", id="exception"),
        pytest.param("import os\nos.system('true')", id="refusal"),
        pytest.param("import sys\nsys.exit(3)", id="exit"),
    ],
)
def test_partial_stdout_survives(python: Runner, fault: str) -> None:
    outcome = python(f"print('before', 6 * 7)\n{fault}\nprint('after')")
    expect(
        "before 42" in outcome.stdout,
        "What was printed before the failure is lost.",
        expected="before 42",
        got=outcome.data,
    )
    expect("after" not in outcome.stdout, "The code went on after the failure.", got=outcome.stdout)


@requirement("TL-07", "L26-11")
def test_runtime_error_is_told_in_the_result(python: Runner) -> None:
    outcome = python("x = 1\ny = x / 0\n")
    expect(outcome.data.get("success") is False, "success is not false.", got=outcome.data)
    expect((outcome.reply.result or {}).get("isError") is True, "isError is not set.", got=outcome.reply.result)
    error = outcome.error
    expect(error.get("type") == "runtime", "error.type is not runtime.", expected="runtime", got=error)
    expect(error.get("name") == "ZeroDivisionError", "error.name is not the exception.", got=error)
    expect(error.get("line") == 2, "error.line is not where it happened.", expected=2, got=error)
    expect("ZeroDivisionError" in str(error.get("traceback")), "The traceback is missing.", got=error)


@requirement("TL-14")
def test_syntax_error_has_its_line(python: Runner) -> None:
    outcome = python("x = 1\ny = (\nz = 3 +\n")
    expect(outcome.error.get("type") == "syntax", "error.type is not syntax.", expected="syntax", got=outcome.data)
    expect(
        outcome.error.get("line") in (2, 3),
        "error.line is not in the broken part.",
        expected="2 or 3",
        got=outcome.error,
    )


@requirement("TL-20")
@pytest.mark.parametrize("code", ["import sys\nsys.exit(3)", "raise SystemExit('bye')"], ids=["number", "text"])
def test_exit_with_failure_is_typed(python: Runner, code: str) -> None:
    outcome = python(code)
    expect(outcome.error.get("type") == "exit", "error.type is not exit.", expected="exit", got=outcome.data)


@requirement("TL-08", "TL-19")
def test_figure_comes_back_as_png(python: Runner) -> None:
    outcome = python(FIGURE, timeout_s=30)
    succeeded(outcome)
    content = (outcome.reply.result or {}).get("content")
    assert isinstance(content, list)
    images = [block for block in content if block.get("type") == "image"]
    expect(len(images) == 1, "A shown figure is not one image block.", expected=1, got=len(images))
    expect(images[0].get("mimeType") == "image/png", "The figure is no PNG by its type.", got=images[0].get("mimeType"))
    data = base64.b64decode(images[0]["data"], validate=True)
    expect(
        data.startswith(b"\x89PNG\r\n\x1a\n") and b"IEND" in data[-16:], "The figure is no whole PNG.", got=len(data)
    )
    outputs = outcome.data.get("outputs")
    width, height = (int.from_bytes(data[at : at + 4]) for at in (16, 20))
    told = outputs[0] if isinstance(outputs, list) and outputs else {}
    expect(
        (told.get("bytes"), told.get("width"), told.get("height")) == (len(data), width, height),
        "outputs does not describe the image that came back.",
        expected={"bytes": len(data), "width": width, "height": height},
        got=outputs,
    )


@requirement("TL-09")
def test_flood_of_output_is_cut_and_flagged(python: Runner) -> None:
    outcome = python("for _ in range(300):\n    print('x' * 10_000)\n", timeout_s=30)
    told = outcome.data.get("truncated")
    expect(isinstance(told, list) and "stdout" in told, "3 MB of stdout were not flagged as cut.", got=told)
    expect(len(outcome.stdout) < 3_000_000, "stdout is flagged as cut but whole.", got=len(outcome.stdout))


@requirement("TL-09")
def test_short_output_is_not_flagged(python: Runner) -> None:
    outcome = python("print('x' * 100)")
    expect(outcome.data.get("truncated") == [], "Short output is flagged as cut.", expected=[], got=outcome.data)


@requirement("TL-12")
def test_namespace_is_fresh_in_every_call(python: Runner) -> None:
    python("left_behind = 41\nimport builtins\nbuiltins.left_behind_too = 1\n")
    outcome = python(
        "import builtins\nseen = [*dir(builtins), *globals()]\n"
        "sorted(name for name in ('left_behind', 'left_behind_too') if name in seen)"
    )
    expect(
        outcome.data.get("result") == "[]",
        "A name of one call is visible in the next.",
        expected="[]",
        got=outcome.data,
    )


@requirement("TL-13", "O26-01", "T25-15")
@pytest.mark.any_interpreter
@pytest.mark.parametrize("text", ["计算结果", "naïve café", "🐍🧪", "שלום", "a\u2028b", 'quote " \\ slash'], ids=ascii)
def test_unicode_round_trip(client: Client, era: Era, discovery: Discovery, text: str) -> None:
    outcome = execute(client, era, f"text = {text!r}\nprint(text)\nresult = text")
    expect_result(outcome.reply)
    if discovery.interpreter.foreign:
        expect(text in outcome.stdout, "Printed text came back changed.", expected=text, got=outcome.stdout)
        return
    expect(outcome.stdout == text + "\n", "Printed text came back changed.", expected=text + "\n", got=outcome.stdout)
    expect(
        outcome.data.get("result") == text,
        "The value came back changed.",
        expected=text,
        got=outcome.data.get("result"),
    )


@requirement("TL-22")
def test_stderr_and_warnings_are_kept_apart(python: Runner) -> None:
    outcome = python(
        "import sys, warnings\nprint('to-err', file=sys.stderr)\nwarnings.warn('mind' + 'ful')\nprint('to-out')"
    )
    succeeded(outcome)
    expect("to-err" in str(outcome.data["stderr"]), "stderr is lost.", got=outcome.data)
    expect(
        "to-err" not in outcome.stdout and "to-out" in outcome.stdout, "stdout and stderr are mixed.", got=outcome.data
    )
    expect(
        "mindful" in str(outcome.data["warnings"]) + str(outcome.data["stderr"]),
        "The warning is lost.",
        got=outcome.data,
    )


@requirement("TL-23")
def test_refusal_reads_as_the_original(python: Runner) -> None:
    outcome = python("import os\nos.system('true')")
    expected = "Security Error: Blocked dangerous operation: os.system"
    expect(outcome.data.get("result") == expected, "The refusal reads otherwise.", expected=expected, got=outcome.data)
    expect(outcome.error.get("type") == "security", "error.type is not security.", got=outcome.error)
    expect(
        "os.system" in outcome.violations,
        "violations does not name it.",
        expected=["os.system"],
        got=outcome.violations,
    )


@requirement("TL-18")
def test_usage_is_measured(python: Runner) -> None:
    outcome = python("import time\nstart = time.process_time()\nwhile time.process_time() - start < 0.2: pass\n")
    usage = outcome.data.get("usage")
    expect(isinstance(usage, dict), "usage is missing.", got=outcome.data)
    assert isinstance(usage, dict)
    expect(
        float(usage.get("cpu_ms", 0)) >= 180, "cpu_ms is less than the CPU time burnt.", expected=">= 180", got=usage
    )
    expect(float(usage.get("wall_ms", 0)) >= 180, "wall_ms is less than the time taken.", expected=">= 180", got=usage)
    expect(1 < float(usage.get("max_rss_mb", 0)) < 100_000, "max_rss_mb is no plausible size.", got=usage)


@requirement("TL-21")
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({}, id="no-code"),
        pytest.param({"code": 5}, id="code-is-a-number"),
        pytest.param({"code": None}, id="code-is-null"),
        pytest.param({"code": "1", "requirements": "numpy"}, id="requirements-is-text"),
        pytest.param({"code": "1", "requirements": [1]}, id="requirement-is-a-number"),
    ],
)
def test_bad_arguments_are_actionable(python: Runner, arguments: dict[str, object]) -> None:
    result = expect_result(python.client.tool(python.era, TOOL, arguments))
    text = " ".join(text_blocks(result))
    expect(result.get("isError") is True, "Bad arguments did not set isError.", got=result)
    wanted = "requirements" if "requirements" in arguments else "code"
    expect(wanted in text, "The text does not name the argument.", expected=wanted, got=text)


@requirement("R26-01", "R25-01")
def test_progress_keeps_its_token_and_rises(client: Client, era: Era) -> None:
    token = f"progress-{next_id()}"
    meta = {**(modern_meta() if era is Era.MODERN else {}), "progressToken": token}
    code = "import time\nfor step in range(3):\n    print(step, flush=True)\n    time.sleep(0.2)\n"
    params = {"name": TOOL, "arguments": {"code": code}, "_meta": meta}
    reply = client.call(era, "tools/call", params)
    expect_result(reply)
    told = [one.get("params") for one in reply.notifications if one["method"] == "notifications/progress"]
    if not told:
        pytest.skip("the endpoint streams no progress")
    values = []
    for one in told:
        assert isinstance(one, dict)
        expect(one.get("progressToken") == token, "Progress carries another token.", expected=token, got=one)
        expect(isinstance(one.get("progress"), int | float), "progress is not a number.", got=one)
        values.append(one["progress"])
    rises = all(earlier < later for earlier, later in pairwise(values))
    expect(rises, "progress does not rise with every notification.", got=values)


@requirement("M26-03")
def test_execution_asks_for_no_input(client: Client, era: Era) -> None:
    if era is not Era.MODERN:
        pytest.skip("input_required exists since 2026-07-28")
    result = expect_result(execute(client, era, "1 + 1").reply, schema=False)
    asked = result.get("resultType") != "complete" or "inputRequests" in result
    expect(not asked, "Input was asked for from a client that declared no capability.", got=result)


@requirement("TL-15")
def test_endless_code_times_out_typed(python: Runner, pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("--full"):
        pytest.skip("takes as long as the endpoint's time limit; run with --full")
    outcome = python("print('started', flush=True)\nwhile True:\n    pass\n", timeout_s=120)
    expect(outcome.error.get("type") == "timeout", "error.type is not timeout.", expected="timeout", got=outcome.data)
    expect("started" in outcome.stdout, "What was printed before the timeout is lost.", got=outcome.stdout)


@requirement("EP-04")
def test_answers_tell_cold_from_warm(client: Client, discovery: Discovery) -> None:
    answer = execute(client, discovery.call_era, "1").reply.answer
    if answer.header("x-lambda-request-id") is None:
        pytest.skip("the endpoint is not on Lambda: no X-Lambda-Request-Id")
    for name in ("X-Lambda-Environment-Id", "X-Lambda-Invocation", "X-Lambda-Init-Type"):
        expect(answer.header(name), f"{name} is missing.", got=str(answer.headers))
    timing = answer.header("server-timing") or ""
    expect("exec;dur=" in timing, "Server-Timing does not tell exec.", expected="exec;dur=...", got=timing)
    first = answer.header("X-Lambda-Invocation") == "1"
    expect(first == ("init;dur=" in timing), "init is told on other than the first invocation.", got=timing)
