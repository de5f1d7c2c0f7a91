"""The recipe that gates a deploy, on the local stack: a good version is promoted, a bad one changes nothing."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import yaml
from botocore.exceptions import ClientError, ReadTimeoutError
from local_stack import ROOT, LocalStack, local_stack

from check import gate
from check.bridge import bridge
from check.steps import Step, StepFailed
from tests.published_schemas import validated

WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "deploy-gate.yml").read_text())
STEPS = {step["name"]: step for step in WORKFLOW["jobs"]["gate"]["steps"] if "name" in step}
# Enough answers of one kind for a verdict, and so slow a stream that a few environments of each side are enough: a cold
# pool met at a high rate would answer with cold starts.
PROFILE = """
seed: 1
stages: [{kind: constant, name: steady, rate_per_s: 3, duration_s: 12}]
scenarios: {print: 1}
eras: {"2025-11-25": 1}
request_timeout_s: 30
drain_s: 30
limits: {send_lag_p99_ms: 5000, cpu_share: 1, dropped_share: 1}
"""
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "get_environment_info", "arguments": {}}}
SLOW = "def handler(event, context):\n    __import__('time').sleep(0.06)\n    return _handler(event, context)\n"
WRONG = """def handler(event, context):
    answer = _handler(event, context)
    return answer | {"body": answer["body"].replace("numpy", "nympu")}
"""


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The real function behind its alias, as the template deploys it: environments of one tenant each, and room for
    those of two versions, which would else end each other's."""
    folder = tmp_path_factory.mktemp("deployed")
    with local_stack(folder, "--template", str(ROOT / "sam" / "template.yaml"), "--concurrency", "24") as running:
        yield running


def packed(tmp_path: Path) -> bytes:
    """The archive that the workflow's own step makes, in a directory of the test's."""
    command = re.sub(r"function\.(built|zip)", rf"{tmp_path}/\g<0>", STEPS["Pack"]["run"])
    subprocess.run(["bash", "-ec", command], cwd=ROOT, check=True)
    return (tmp_path / "function.zip").read_bytes()


def test_what_the_workflow_packs_starts_as_fast_as_what_make_apigw_builds(tmp_path: Path) -> None:
    archive = zipfile.ZipFile(io.BytesIO(packed(tmp_path)))
    assert archive.getinfo("execute-only").external_attr >> 16 & 0o555 == 0o555
    (compiled,) = (name for name in archive.namelist() if re.fullmatch(r"__pycache__/handler\..*\.pyc", name))
    assert int.from_bytes(archive.read(compiled)[4:8], "little") == 1, "bytecode that asks no source for its time"


def changed(archive: bytes, more: str) -> bytes:
    """The archive with a handler around the handler."""
    source, target = zipfile.ZipFile(io.BytesIO(archive)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as copy:
        for entry in source.infolist():
            if not re.fullmatch(r"handler\.py|__pycache__/handler\..*", entry.filename):
                copy.writestr(entry, source.read(entry))
        copy.writestr("handler.py", source.read("handler.py").decode() + f"\n\n_handler = handler\n\n\n{more}")
    return target.getvalue()


def run_gate(stack: LocalStack, archive: bytes, tmp_path: Path, **settings: str) -> tuple[int, dict[str, Any]]:
    """Deploy as the workflow does, then run its gating step as it stands; the exit code and gate.json."""
    client = stack.client("lambda")
    client.update_function_code(FunctionName=stack.ready["function_name"], ZipFile=archive)
    client.get_waiter("function_updated_v2").wait(FunctionName=stack.ready["function_name"])
    assert stack.call(CALL, Content_Type="application/json", Accept="application/json, text/event-stream").status == 200
    profile = tmp_path / "profile.yaml"
    profile.write_text(PROFILE)
    results = tmp_path / "results"
    environment = os.environ | {
        "AWS_ENDPOINT_URL": stack.ready["aws_endpoint_url"],
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        "MCP_ENDPOINT_URL": stack.ready["endpoint"],
        "FUNCTION": stack.ready["function_name"],
        "ALIAS": "live",
        "SUITE": "--smoke",
        "AB": f"{profile} --rounds 2 --effect 100",
        "RESULTS": str(results),
        **settings,
    }
    step = STEPS["Judge, then promote or leave"]["run"]
    done = subprocess.run(["bash", "-ec", step], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert (results / "gate.json").is_file(), done.stdout + done.stderr
    record = json.loads((results / "gate.json").read_text())
    assert validated(record) == "deploy-gate/1"
    return done.returncode, record


def live(stack: LocalStack) -> str:
    told = stack.client("lambda").get_alias(FunctionName=stack.ready["function_name"], Name="live")
    return str(told["FunctionVersion"])


@pytest.mark.alone
def test_a_version_that_fails_conformance_is_not_promoted(deployed: LocalStack, tmp_path: Path) -> None:
    before = live(deployed)
    code, record = run_gate(deployed, changed(packed(tmp_path), WRONG), tmp_path)
    assert (code, record["outcome"], record["serves"]) == (1, "refused", before)
    assert [step["name"] for step in record["steps"]] == ["conformance"]
    assert live(deployed) == before


@pytest.mark.alone
def test_a_version_that_is_slower_is_not_promoted(deployed: LocalStack, tmp_path: Path) -> None:
    before = live(deployed)
    code, record = run_gate(deployed, changed(packed(tmp_path), SLOW), tmp_path)
    assert (code, record["outcome"], record["reason"]) == (1, "refused", "load ab: gate failed")
    told = json.loads((tmp_path / "results" / "load-ab" / "records" / "compare.json").read_text())
    assert (validated(told), told["verdict"]) == ("compare/1", "slower")
    assert live(deployed) == before == record["serves"]


@pytest.mark.alone
def test_a_good_version_is_promoted_and_serves(deployed: LocalStack, tmp_path: Path) -> None:
    before = live(deployed)
    code, record = run_gate(deployed, packed(tmp_path), tmp_path, SUITE="-n 2 --only tools")
    assert (code, record["outcome"]) == (0, "promoted"), record
    assert [step["exit_code"] for step in record["steps"]] == [0, 0, 0]
    assert live(deployed) == record["serves"] == record["candidate"] != before


# -- the decision alone, with the other rooms' exit codes given --------------------------------------------------------


class Alias:
    """Lambda as far as the alias goes: where it points, and whether it lets itself be moved."""

    def __init__(self, moves: int = 9) -> None:
        self.points, self.moves = "1", moves

    def update_alias(self, *, FunctionVersion: str, **_: str) -> dict[str, str]:
        if not self.moves:
            raise ClientError({"Error": {"Code": "PreconditionFailedException", "Message": "moved"}}, "UpdateAlias")
        self.moves -= 1
        self.points = FunctionVersion
        return {"RevisionId": "next"}


def decided(alias: Alias, tmp_path: Path, **codes: int) -> tuple[str, list[str]]:
    ran: list[str] = []

    def run_step(
        name: str, arguments: list[str], directory: Path, environment: Mapping[str, str], records: str = "."
    ) -> Step:
        ran.append(name)
        return Step(name, " ".join(arguments), codes.get(name.replace(" ", "_"), 0), 1.0, directory)

    release = gate.Release(alias, "f", "live", "1", "2", "first")
    options = gate.parse(["--function", "f"])
    _, outcome, _ = gate.decide(release, ("http://p/", "http://c/"), "http://e/", options, tmp_path, run_step)
    return outcome, ran


@pytest.mark.parametrize(
    ("codes", "outcome", "points", "ran"),
    [
        pytest.param({}, "promoted", "2", 3, id="all-pass"),
        pytest.param({"conformance": 1}, "refused", "1", 1, id="conformance-fails"),
        pytest.param({"conformance": 4}, "refused", "1", 1, id="conformance-judged-nothing"),
        pytest.param({"load_ab": 1}, "refused", "1", 2, id="slower"),
        pytest.param({"load_ab": 4}, "refused", "1", 2, id="load-inconclusive"),
        pytest.param({"load_ab": 130}, "refused", "1", 2, id="interrupted"),
        pytest.param({"smoke": 1}, "rolled back", "1", 3, id="the-endpoint-fails-after-the-move"),
        pytest.param({"smoke": 3}, "rolled back", "1", 3, id="the-endpoint-is-gone-after-the-move"),
        pytest.param({"smoke": -9}, "rolled back", "1", 3, id="the-smoke-checks-were-killed"),
    ],
)
def test_the_alias_moves_only_after_everything_passed(
    codes: dict[str, int], outcome: str, points: str, ran: int, tmp_path: Path
) -> None:
    alias = Alias()
    found, steps = decided(alias, tmp_path, **codes)
    assert (found, alias.points, len(steps)) == (outcome, points, ran)


@pytest.mark.parametrize(
    ("base", "candidate", "outcome"),
    [
        pytest.param(["ok"] * 200, ["ok"] * 198 + ["http_error"] * 2, "promoted", id="one-in-a-hundred"),
        pytest.param(["ok"] * 200, ["ok"] * 100 + ["http_error"] * 3, "refused", id="more"),
        pytest.param(
            ["ok"] * 80 + ["timeout"] * 20, ["ok"] * 70 + ["timeout"] * 30, "promoted", id="so-does-the-other"
        ),
        pytest.param(["ok"] * 90 + ["timeout"] * 10, ["ok"] * 70 + ["timeout"] * 30, "refused", id="much-more"),
        pytest.param(["ok"] * 9, ["ok"] * 9 + ["dropped"] * 9, "promoted", id="the-generators-own"),
    ],
)
def test_a_version_that_fails_under_load_is_refused_however_fast(
    base: list[str], candidate: list[str], outcome: str, tmp_path: Path
) -> None:
    for side, outcomes in (("base", base), ("candidate", candidate)):
        rows = tmp_path / "load-ab" / "records" / side / "round-0" / "requests.jsonl"
        rows.parent.mkdir(parents=True)
        rows.write_text("".join(json.dumps({"outcome": one}) + "\n" for one in outcomes))
    alias = Alias()
    found, steps = decided(alias, tmp_path)
    assert (found, len(steps)) == (outcome, 3 if outcome == "promoted" else 2)
    assert alias.points == ("2" if outcome == "promoted" else "1")


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param([], id="nothing"),
        pytest.param(["--candidate", "7"], id="a-version-of-nothing"),
        pytest.param(["--candidate", "http://c/"], id="beside-nothing"),
        pytest.param(["--function", "f", "--candidate", "http://c/", "--previous", "http://p/"], id="both"),
        pytest.param(["--function", "f", "--previous", "http://p/"], id="a-url-beside-versions"),
    ],
)
def test_it_is_told_what_to_judge(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert gate.run(argv) == 2
    assert "give --function NAME, or both --candidate URL and --previous URL" in capsys.readouterr().err


def test_two_urls_are_judged_and_nothing_is_moved(
    product: LocalStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same endpoint twice, and then one that is not there."""
    url = product.ready["endpoint"]
    profile = tmp_path / "profile.yaml"
    profile.write_text(PROFILE)
    short = ["--suite=--smoke", f"--ab={profile} --rounds 2 --effect 400", "--json", "--out"]
    code = gate.run(["--candidate", url, "--previous", url, *short, str(tmp_path / "same")])
    record = json.loads(capsys.readouterr().out)
    assert validated(record) == "deploy-gate/1"
    assert (record["alias"], record["serves"], len(record["steps"])) == (None, None, 2)
    # On a busy machine the load may be inconclusive; that it passes is shown with the versions above.
    assert (code, record["outcome"]) in ((0, "passed"), (4, "refused"))
    dead = "http://127.0.0.1:9/lambda/mcp/"
    assert gate.run(["--candidate", dead, "--previous", url, *short, str(tmp_path / "dead")]) == 3
    assert json.loads(capsys.readouterr().out)["outcome"] == "refused"


def test_an_alias_that_somebody_else_moved_is_left_to_them(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="PreconditionFailedException"):
        decided(Alias(moves=0), tmp_path)
    with pytest.raises(StepFailed, match="live still points at version 2, which failed"):
        decided(Alias(moves=1), tmp_path, smoke=1)


def test_a_function_without_the_alias_or_news_is_told_in_a_sentence(
    deployed: LocalStack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", deployed.ready["aws_endpoint_url"])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = deployed.ready["function_name"]
    assert gate.run(["--function", name, "--alias", "elsewhere"]) == 2
    assert "Cannot find alias" in capsys.readouterr().err
    assert gate.run(["--function", name, "--candidate", live(deployed)]) == 4
    assert "serves already, so there is nothing to judge" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        pytest.param({}, "no AWS region is set; set AWS_DEFAULT_REGION", id="no-region"),
        pytest.param({"AWS_DEFAULT_REGION": "us-east-1"}, "no AWS credentials were found", id="no-credentials"),
    ],
)
def test_what_is_missing_to_ask_aws_is_told(
    settings: dict[str, str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # another test's, which has found its credentials
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name, value in (settings | {"AWS_EC2_METADATA_DISABLED": "true"}).items():
        monkeypatch.setenv(name, value)
    assert gate.run(["--function", "f"]) == 2
    assert told in capsys.readouterr().err


# -- the bridge's refusals ---------------------------------------------------------------------------------------------


class Invoke:
    """A Lambda client whose function does as it is told."""

    def __init__(self, do: Callable[[], dict[str, Any]]) -> None:
        self.do = do
        self.asked: dict[str, Any] = {}

    def invoke(self, **asked: Any) -> dict[str, Any]:
        self.asked = asked
        return self.do()


def late() -> dict[str, Any]:
    raise ReadTimeoutError(endpoint_url="http://lambda.invalid")


def refused() -> dict[str, Any]:
    raise ClientError({"Error": {"Code": "TooManyRequestsException", "Message": "Rate Exceeded."}}, "Invoke")


def answer(payload: bytes, **more: str) -> Callable[[], dict[str, Any]]:
    return lambda: {"Payload": io.BytesIO(payload), **more}


@pytest.mark.parametrize(
    ("do", "status"),
    [
        pytest.param(late, 504, id="late"),
        pytest.param(refused, 500, id="throttled"),
        pytest.param(answer(b'{"errorType": "E"}', FunctionError="Unhandled"), 502, id="raised"),
        pytest.param(answer(b'"text"'), 502, id="no-proxy-response"),
        pytest.param(answer(b'{"body": "no status"}'), 502, id="no-status"),
        pytest.param(answer(b'{"statusCode": 202, "multiValueHeaders": {"X-A": ["1", "2"]}}'), 202, id="empty"),
    ],
)
def test_the_bridge_answers_as_a_gateway_would(do: Callable[[], dict[str, Any]], status: int) -> None:
    client = Invoke(do)
    with bridge(client, "f", per_tenant=True) as bridged:
        got = httpx.post(
            f"{bridged.endpoint('7')}?a=1&a=2", content=b"{}", headers=[(b"X-B", b"1"), (b"X-B", "é".encode())]
        )
    assert got.status_code == status
    assert status != 202 or got.headers.get_list("X-A") == ["1", "2"]
    event = json.loads(client.asked["Payload"])
    assert (client.asked["FunctionName"], client.asked["Qualifier"], client.asked["TenantId"]) == (
        "f",
        "7",
        "deploy-gate",
    )
    assert (event["httpMethod"], event["path"], event["body"]) == ("POST", "/lambda/mcp/", "{}")
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "2"]}
    assert event["multiValueHeaders"]["X-B"] == ["1", "é"]


def test_the_bridge_takes_no_more_than_invoke_does() -> None:
    with bridge(Invoke(late), "f", per_tenant=False) as bridged:
        assert httpx.post(bridged.endpoint("7"), content=b"x" * (6 * 1024 * 1024 + 1)).status_code == 413


# -- the workflow's text -----------------------------------------------------------------------------------------------


def test_the_workflow_sets_what_its_steps_read() -> None:
    job = WORKFLOW["jobs"]["gate"]
    inputs = WORKFLOW[True]["workflow_call"]["inputs"]  # YAML 1.1 reads the key `on` as true
    for value in job["env"].values():
        named = value.removeprefix("${{ inputs.").removesuffix(" }}")
        assert named in inputs or "$" not in value
    assert inputs["suite"]["default"] == gate.SUITE
    assert inputs["ab"]["default"] == gate.AB
    assert STEPS["Keep the reports"]["with"]["path"] == job["env"]["RESULTS"]
    assert "secrets" not in json.dumps([step.get("run") for step in STEPS.values()]), "a secret in argv"
