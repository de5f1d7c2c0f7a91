"""Forced cold starts: what is published, called and put back, on a Lambda that can be told to fail at any step."""

import base64
import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from load.aws import AwsRefused
from load.coldstart import COLD_STAGE, WARM_STAGE, cold_start_report
from load.direct import Burst, invoke, proxy_event
from load.forced import Forcing, force, forced_plan
from load.fresh_version import ALIAS, JOURNAL, Journal, restore
from load.percentiles import median_interval
from load.report import write_reports
from load.rows import read_rows, read_runs
from load.scenarios import SCENARIOS, build_request
from load.server_side import read_calls, read_server_side


class NotFound(ClientError):
    pass


def refused(code: str, operation: str = "Any", status: int = 400) -> ClientError:
    kind = NotFound if code == "ResourceNotFoundException" else ClientError
    answer: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return kind(answer, operation)


class Lambda:
    """One function as Lambda keeps it: a publish without a change gives the last version again. `breaks` names an
    operation and what it raises; `calls` is what was asked, in order."""

    class exceptions:
        ResourceNotFoundException = NotFound

    def __init__(self, **configuration: Any) -> None:
        self.latest = {"Description": "ours", "MemorySize": 1024, **configuration}
        self.versions: dict[str, dict[str, Any]] = {}
        self.aliases: dict[str, str] = {}
        self.counter = 0
        self.calls: list[str] = []
        self.breaks: dict[str, BaseException] = {}
        self.environments: dict[str, list[str]] = {}
        self.invoked: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.init_in_report = True

    def _say(self, operation: str) -> None:
        self.calls.append(operation)
        if operation in self.breaks:
            raise self.breaks[operation]

    def get_function_configuration(self, FunctionName: str) -> dict[str, Any]:
        return dict(self.latest)

    def get_waiter(self, name: str) -> Any:
        return type("Waiter", (), {"wait": lambda _, **other: self._say(name)})()

    def get_paginator(self, name: str) -> Any:
        found = {
            "list_aliases": {"Aliases": [{"Name": alias} for alias in self.aliases]},
            "list_versions_by_function": {"Versions": [{"Version": number} for number in ("$LATEST", *self.versions)]},
        }
        return type("Paginator", (), {"paginate": lambda _, **other: [found[name]]})()

    def update_function_configuration(self, FunctionName: str, **change: Any) -> None:
        self._say("update")
        self.latest |= change

    def publish_version(self, FunctionName: str, Description: str) -> dict[str, str]:
        self._say("publish")
        last = self.versions.get(str(self.counter))
        if last != self.latest:
            self.counter += 1
            self.versions[str(self.counter)] = dict(self.latest)
        return {"Version": str(self.counter)}

    def create_alias(self, FunctionName: str, Name: str, FunctionVersion: str, Description: str) -> None:
        self._say("create_alias")
        self.aliases[Name] = FunctionVersion

    def delete_alias(self, FunctionName: str, Name: str) -> None:
        self._say("delete_alias")
        if Name not in self.aliases:
            raise refused("ResourceNotFoundException")
        del self.aliases[Name]

    def delete_function(self, FunctionName: str, Qualifier: str) -> None:
        self._say("delete_version")
        assert Qualifier not in self.aliases.values(), "Lambda refuses while an alias stands for it"
        del self.versions[Qualifier]

    def invoke(self, FunctionName: str, Qualifier: str, **other: Any) -> dict[str, Any]:
        """Every call of a burst gets an environment of its own: those of the first are new, those of the second not."""
        if other.get("InvocationType") == "DryRun":
            return {}
        with self.lock:
            self._say("invoke")
            self.invoked.append(other)
            version = self.aliases[Qualifier]
            seen = self.environments.setdefault(version, [])
            number = len(seen)
            seen.append(version)
        burst = 3
        cold = number < burst
        return answer(f"r{len(self.invoked)}", f"{version}-{number % burst}", 1 if cold else 2, self.init_in_report)


def answer(request_id: str, environment: str, invocation: int, init_in_report: bool) -> dict[str, Any]:
    result = {"structuredContent": {"success": True, "stdout": "held\n"}, "content": [], "isError": False}
    document = {
        "statusCode": 200,
        "headers": {
            "content-type": "application/json",
            "x-lambda-request-id": request_id,
            "x-lambda-environment-id": environment,
            "x-lambda-invocation": str(invocation),
            "x-lambda-init-type": "on-demand",
            "server-timing": "init;dur=700, exec;dur=1500" if invocation == 1 else "exec;dur=1500",
        },
        "body": json.dumps({"jsonrpc": "2.0", "id": 2, "result": result}),
        "isBase64Encoded": False,
    }
    init = "\tInit Duration: 701.5 ms" if invocation == 1 and init_in_report else ""
    log = f"a line\nREPORT RequestId: {request_id}\tDuration: 1502.1 ms\tBilled Duration: 1503 ms{init}\t\n"
    return {
        "StatusCode": 200,
        "LogResult": base64.b64encode(log.encode()).decode(),
        "Payload": io.BytesIO(json.dumps(document).encode()),
    }


def forcing(**other: Any) -> Forcing:
    return Forcing(**{"function": "f", "sizes_mb": [None], "burst": 3, "rounds": 1, "era": "2025-11-25", **other})


def quiet(line: str) -> None:
    pass


def as_it_was(client: Lambda) -> bool:
    return (client.latest["Description"], client.latest["MemorySize"], client.versions, client.aliases) == (
        "ours", 1024, {}, {},
    )  # fmt: skip


def test_each_round_calls_a_version_of_its_own_and_all_is_put_back(tmp_path: Path) -> None:
    client = Lambda()
    assert not force(client, forcing(sizes_mb=[512, 2048], rounds=2), tmp_path, quiet)
    assert as_it_was(client)
    assert Journal.model_validate_json((tmp_path / JOURNAL).read_text()).clean
    assert sorted(client.environments) == ["1", "2", "3", "4"]
    rows = read_rows(tmp_path)
    assert [row.index for row in rows] == list(range(24))
    assert all(row.cold == row.stage.startswith(COLD_STAGE) for row in rows)
    report = cold_start_report(rows, read_calls(tmp_path))
    assert [(one.memory, one.confirmed, one.confirmed_by_both) for one in report.groups] == [
        ("512MB", 6, 6),
        ("2048MB", 6, 6),
    ]
    assert report.groups[0].cold_p50_low_ms is not None
    summary = write_reports(tmp_path)
    assert (summary.verdict, summary.counts.planned) == ("passed", 24)
    joined = read_server_side(tmp_path)
    assert joined is not None
    assert (joined.verdict, joined.cold_by_both) == ("agreed", 12)


def test_the_two_words_on_a_call_are_held_against_each_other(tmp_path: Path) -> None:
    client = Lambda()
    client.init_in_report = False
    force(client, forcing(), tmp_path, quiet)
    joined = read_server_side(tmp_path)
    assert joined is not None
    assert (joined.verdict, joined.exit_code, len(joined.header_only)) == ("disagreed", 1, 3)


@pytest.mark.parametrize(
    "operation",
    ["update", "publish", "published_version_active", "create_alias", "delete_alias"],
)
def test_what_fails_midway_is_put_back(operation: str, tmp_path: Path) -> None:
    client = Lambda()
    client.breaks[operation] = refused("AccessDeniedException", status=403)
    with pytest.raises(AwsRefused, match="AccessDeniedException"):
        force(client, forcing(), tmp_path, quiet)
    client.breaks.clear()
    journal = Journal.model_validate_json((tmp_path / JOURNAL).read_text())
    restore(client, journal, tmp_path / JOURNAL)  # what --restore does for what could not be put back at once
    assert as_it_was(client)


@pytest.mark.parametrize("operation", ["invoke", "published_version_active"])
def test_ctrl_c_puts_back_and_keeps_what_was_sent(operation: str, tmp_path: Path) -> None:
    client = Lambda()
    client.breaks[operation] = KeyboardInterrupt()
    assert force(client, forcing(), tmp_path, quiet)
    assert as_it_was(client)
    assert read_runs(tmp_path)[0].ended == "interrupted"
    assert write_reports(tmp_path).exit_code == 130


def test_a_description_somebody_else_changed_meanwhile_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Lambda()
    journal = Journal(function="f", description="ours", memory_mb=1024, marker="load coldstart 1")
    client.latest["Description"] = "theirs"
    restore(client, journal, tmp_path / JOURNAL)
    assert client.latest["Description"] == "theirs"
    assert "changed by somebody else" in capsys.readouterr().err


def test_a_run_of_another_is_not_disturbed(tmp_path: Path) -> None:
    client = Lambda()
    client.aliases[ALIAS] = "7"
    with pytest.raises(AwsRefused, match="--restore DIR"):
        force(client, forcing(), tmp_path, quiet)
    assert (client.aliases, client.calls) == ({ALIAS: "7"}, [])


def test_a_version_that_was_there_before_is_neither_called_nor_deleted(tmp_path: Path) -> None:
    """A Lambda that sees no change in a description: the version may be the live one."""
    client = Lambda()
    client.versions["4"] = {"live": True}
    client.publish_version = lambda **_: {"Version": "4"}  # type: ignore[method-assign]
    with pytest.raises(AwsRefused, match="version 4 again"):
        force(client, forcing(), tmp_path, quiet)
    assert client.versions == {"4": {"live": True}}
    assert "invoke" not in client.calls


def test_a_function_with_tenants_is_given_one(tmp_path: Path) -> None:
    client = Lambda(TenancyConfig={"TenantIsolationMode": "PER_TENANT"})
    force(client, forcing(), tmp_path, quiet)
    assert {one["TenantId"] for one in client.invoked} == {ALIAS}


def test_fewer_cold_calls_than_meant_are_inconclusive() -> None:
    plan = forced_plan(forcing(burst=50, rounds=2, sizes_mb=[512, 1024]))
    assert [need.threshold for need in plan.needs] == [
        "count(cold{stage:cold@512MB}) >= 99",
        "count(cold{stage:cold@1024MB}) >= 99",
    ]
    assert plan.expected() == forcing(burst=50, rounds=2, sizes_mb=[512, 1024]).calls == 400


PAYLOAD = {"statusCode": 200, "body": "", "isBase64Encoded": False}


@pytest.mark.parametrize(
    ("told", "outcome", "status"),
    [
        pytest.param(refused("TooManyRequestsException", status=429), "http_error", 429, id="throttled"),
        pytest.param({"Payload": io.BytesIO(b'"x"')}, "http_error", 502, id="no-proxy-response"),
        pytest.param({"Payload": io.BytesIO(b"not json")}, "http_error", 502, id="no-json"),
        pytest.param(
            {"FunctionError": "Unhandled", "Payload": io.BytesIO(b'{"errorType": "Runtime.ExitError"}')},
            "http_error", 502, id="the-function-died",
        ),
        pytest.param({"Payload": io.BytesIO(json.dumps(PAYLOAD).encode())}, "rpc_error", 200, id="no-answer"),
    ],
)  # fmt: skip
def test_what_can_go_wrong_in_a_call_is_a_verdict(told: Any, outcome: str, status: int) -> None:
    class Client:
        def invoke(self, **_: Any) -> Any:
            if isinstance(told, Exception):
                raise told
            return told

    found = invoke(Client(), Burst("f", "a", WARM_STAGE, 1, "print", "2025-11-25", 0), b"{}")
    assert (found.verdict.outcome, found.status) == (outcome, status)
    assert found.verdict.error


def test_the_event_is_a_proxy_event_of_a_rest_api() -> None:
    """The same members as AWS's own example of one."""
    example = json.loads((Path(__file__).parents[1] / "events" / "apigw-rest-post.json").read_text())
    made = proxy_event(build_request(SCENARIOS["print"], "2025-11-25"))
    assert set(made) == set(example)
    assert set(made["requestContext"]) <= set(example["requestContext"])
    assert made["multiValueHeaders"]["Content-Type"] == ["application/json"]


def test_median_interval_is_the_binomial_one() -> None:
    assert median_interval([1.0] * 5) is None
    assert median_interval([float(i) for i in range(1, 7)]) == (1.0, 6.0)
    # the table in Conover, A3: n = 20, 95 %: 6th and 15th
    assert median_interval([float(i) for i in range(1, 21)]) == (6.0, 15.0)
