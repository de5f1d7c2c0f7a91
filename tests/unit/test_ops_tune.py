"""Given functions whose best size is known, tuning finds it, and leaves every function as it was, even on Ctrl-C."""

import base64
import io
import json
import math
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import numpy as np
import pytest

from ops import bench, tune
from ops.__main__ import run
from ops.bench import (
    Bench,
    Payload,
    Sampling,
    copied,
    in_place,
    measure,
    proxy_event,
    read_payloads,
    report_in_tail,
    turns,
)
from ops.command import Surroundings
from ops.failures import Inconclusive, OpsError, UsageError
from ops.invocations import fold
from ops.logs import LogEvent
from ops.memory_model import DEFAULT_SIZES, Pricing
from ops.settings_file import read_setting, write_setting
from ops.tables import estimates_text
from ops.tune import Goal, Prediction, predict_from_logs, tune_memory
from tests.published_schemas import validated

NAME = "code-interpreter"
PAYLOAD = [Payload("p", "{}")]


class NotFound(Exception):
    pass


class Exceptions:
    ResourceNotFoundException = NotFound


@dataclass
class FakeLambda:
    """Functions that take wait_ms, and cpu_ms at their CPU share, and need `needs_mb`; after a change they are cold."""

    wait_ms: float = 0.0
    cpu_ms: float = 0.0
    needs_mb: int = 60
    log_format: str = "text"
    noise: float = 0.0
    interrupt_at: int | None = None
    function_error: str | None = None
    functions: dict[str, dict] = field(
        default_factory=lambda: {NAME: {"FunctionName": NAME, "MemorySize": 1024, "Description": "live"}}
    )
    invocations: list[tuple[str, int]] = field(default_factory=list)
    alias: str | None = None
    described: list[str | None] = field(default_factory=list)
    exceptions = Exceptions

    def __post_init__(self):
        self.cold = set(self.functions)
        self.rng = np.random.default_rng(1)

    def get_function_configuration(self, FunctionName):
        return dict(self.functions[FunctionName])

    def get_function(self, FunctionName, Qualifier=None):
        if Qualifier not in (None, self.alias):
            raise NotFound
        self.described.append(Qualifier)
        layers = [{"Arn": "arn:aws:lambda:us-east-1:111122223333:layer:l:7", "CodeSize": 1}]
        config = self.functions[FunctionName] | {"Runtime": "python3.12", "Role": "r", "Handler": "h", "Layers": layers}
        return {"Configuration": config, "Code": {"Location": "https://code"}}

    def create_function(self, FunctionName, Code, **rest):
        self.functions[FunctionName] = {"FunctionName": FunctionName, **rest}
        self.cold.add(FunctionName)

    def delete_function(self, FunctionName):
        if FunctionName not in self.functions:
            raise NotFound
        del self.functions[FunctionName]

    def update_function_configuration(self, FunctionName, **changes):
        self.functions[FunctionName] |= changes
        self.cold.add(FunctionName)

    def invoke(self, FunctionName, LogType, Payload, TenantId=None):
        memory = self.functions[FunctionName]["MemorySize"]
        assert (TenantId is not None) == ("TenancyConfig" in self.functions[FunctionName])
        self.invocations.append((FunctionName, memory))
        if self.interrupt_at == len(self.invocations):
            raise KeyboardInterrupt
        oom = memory < self.needs_mb
        duration = (self.wait_ms + self.cpu_ms / min(1, memory / 1769)) * (1 + self.noise * self.rng.standard_normal())
        answer = {"Payload": io.BytesIO(b'{"statusCode": 200, "body": "{}"}')}
        if oom or self.function_error:
            answer["FunctionError"] = "Unhandled"
            answer["Payload"] = io.BytesIO(
                json.dumps({"errorType": self.function_error or "Runtime.ExitError"}).encode()
            )
        init = 300.0 if FunctionName in self.cold else None
        self.cold.discard(FunctionName)
        tail = self._tail(len(self.invocations), memory, duration, init, oom)
        return answer | {"LogResult": base64.b64encode(tail.encode()).decode()}

    def _tail(self, n, memory, duration, init, oom):
        billed = math.ceil(duration + (init or 0))
        if self.log_format == "json":
            metrics = {
                "durationMs": duration,
                "billedDurationMs": billed,
                "memorySizeMB": memory,
                "maxMemoryUsedMB": 60,
            }
            metrics |= {"initDurationMs": init} if init else {}
            record = {"requestId": f"r{n}", "metrics": metrics, "status": "error" if oom else "success"}
            record |= {"errorType": "Runtime.OutOfMemory"} if oom else {}
            return 'off mid-line"}\n' + json.dumps({"type": "platform.report", "record": record}) + "\n"
        cold = f"Init Duration: {init:.2f} ms\t" if init else ""
        failed = "Status: error\tError Type: Runtime.OutOfMemory" if oom else ""
        return (
            f"cut off mid-line\nREPORT RequestId: r{n}\tDuration: {duration:.2f} ms\tBilled Duration: {billed} ms\t"
            f"Memory Size: {memory} MB\tMax Memory Used: {memory if oom else 60} MB\t{cold}{failed}\n"
        )


def advised(client, goal=None, sizes=DEFAULT_SIZES):
    with in_place(client, NAME, lambda _: None) as made:
        return tune_memory(
            lambda size: list(measure(made, size, PAYLOAD)), sizes[:2] + sizes[-1:], sizes, goal or Goal()
        )


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize(
    ("workload", "optimum"),
    [
        pytest.param({"cpu_ms": 2000.0}, 1536, id="cpu-bound"),
        pytest.param({"wait_ms": 200.0}, 128, id="wait-bound"),
        pytest.param({"wait_ms": 200.0, "needs_mb": 400}, 512, id="memory-bound"),
    ],
)
def test_the_known_optimum_is_found_and_the_function_left_as_it_was(workload, optimum, log_format):
    client = FakeLambda(log_format=log_format, **workload)
    advice = advised(client)
    assert advice.chosen_mb == optimum
    assert client.functions[NAME]["MemorySize"] == 1024


@pytest.mark.parametrize("strategy", ["cost", "speed", "balanced"])
def test_where_sizes_differ_by_chance_alone_the_smallest_is_chosen(strategy):
    for seed in range(5):
        client = FakeLambda(wait_ms=200.0, noise=0.4)
        client.rng = np.random.default_rng(seed)
        advice = advised(client, Goal(strategy), sizes=(1024, 1056, 1088))
        assert (advice.memory_matters, advice.chosen_mb) == (False, 1024)


def test_fewer_invocations_than_power_tunings_defaults_at_its_least():
    client = FakeLambda(cpu_ms=2000.0, noise=0.01)
    advice = advised(client)
    assert advice.chosen_mb == 1536
    assert len(client.invocations) < 6 * 5 + 1  # its six default sizes, its smallest `num`


def test_noisy_code_is_sampled_more_than_steady_code():
    steady, noisy = FakeLambda(wait_ms=100), FakeLambda(wait_ms=100, noise=0.2)
    counts = [len(list(measure(Bench(c, NAME, lambda _: None), 512, PAYLOAD))) for c in (steady, noisy)]
    assert counts == [1 + bench.FEWEST, 1 + bench.MOST]


def test_what_payloads_differ_by_is_no_noise():
    steady = [100.0, 101.0, 99.0, 100.0, 100.0]
    assert bench.precision([steady, [9 * value for value in steady]]) == pytest.approx(math.sqrt(2.05) / 500)
    assert bench.precision([steady, [900.0]]) == math.inf
    assert bench.precision([[value for s in (steady, [9 * v for v in steady]) for value in s]]) > 0.2


def test_only_cold_gives_every_shot_a_new_environment_and_restores_the_description():
    client = FakeLambda(wait_ms=100)
    with in_place(client, NAME, lambda _: None) as made:
        shots = list(measure(made, 1024, PAYLOAD, Sampling(only_cold=True)))  # its own size, so only that changes
    assert len(shots) == bench.FEWEST
    assert all(shot.init_ms for shot in shots)
    assert client.functions[NAME] == {"FunctionName": NAME, "MemorySize": 1024, "Description": "live"}


class Processing(FakeLambda):
    """Beside the function there are `double`, which answers with another payload, `quiet` with none, and `broken`."""

    def invoke(self, FunctionName, Payload, LogType=None, TenantId=None):
        self.got.append((FunctionName, Payload.decode()))
        if FunctionName == NAME:
            return super().invoke(FunctionName, LogType, Payload, TenantId)
        answers = {"double": b'{"twice": true}', "quiet": b"null", "broken": b'{"errorType": "KeyError"}'}
        failed = {"FunctionError": "Unhandled"} if FunctionName == "broken" else {}
        return {"Payload": io.BytesIO(answers[FunctionName])} | failed


@pytest.mark.parametrize(
    ("before", "event"),
    [pytest.param("double", '{"twice": true}', id="changed"), pytest.param("quiet", PAYLOAD[0].body, id="as-it-was")],
)
def test_functions_beside_a_shot_get_its_payload_and_its_answer(before, event):
    client = Processing(wait_ms=100)
    client.got = []
    shot = Bench(client, NAME, lambda _: None, before=before, after="quiet", keeps_output=True).shoot(PAYLOAD[0])
    assert client.got == [(before, PAYLOAD[0].body), (NAME, event), ("quiet", shot.output)]
    assert json.loads(shot.as_json())["output"] == '{"statusCode": 200, "body": "{}"}'


def test_a_function_beside_the_shots_that_fails_ends_the_tuning():
    client = Processing(wait_ms=100)
    client.got = []
    with pytest.raises(UsageError, match=r"The function broken, which goes with each shot, failed \(KeyError\)"):
        Bench(client, NAME, lambda _: None, before="broken").shoot(PAYLOAD[0])


def test_a_pause_is_kept_between_shots():
    slept = []
    shots = list(measure(Bench(FakeLambda(wait_ms=100), NAME, slept.append), 512, PAYLOAD, Sampling(pause_s=2.0)))
    assert slept == [2.0] * (len(shots) - 1)


def test_a_chosen_size_is_always_a_measured_one():
    advice = advised(FakeLambda(cpu_ms=50, wait_ms=20), Goal(p95_below_ms=130.0))
    assert next(o for o in advice.options if o.memory_mb == advice.chosen_mb).measured
    assert advice.proposed_mb == advice.chosen_mb


def test_a_constraint_that_cannot_be_kept_is_inconclusive():
    with pytest.raises(Inconclusive, match="No size keeps p95 below 10 ms"):
        advised(FakeLambda(wait_ms=100), Goal(p95_below_ms=10.0))


def test_too_little_memory_everywhere_is_inconclusive():
    with pytest.raises(Inconclusive, match="at every size tried"):
        advised(FakeLambda(needs_mb=5000))


@pytest.mark.parametrize("at", [1, 3, 9])
def test_ctrl_c_restores_the_function(at):
    client = FakeLambda(cpu_ms=100, interrupt_at=at)
    with pytest.raises(KeyboardInterrupt):
        advised(client)
    assert client.functions == {NAME: {"FunctionName": NAME, "MemorySize": 1024, "Description": "live"}}


@pytest.mark.parametrize("at", [None, 1, 9])
def test_a_copy_is_measured_and_deleted_and_the_live_function_never_touched(at):
    client = FakeLambda(cpu_ms=100, interrupt_at=at)
    try:
        with copied(client, NAME, f"{NAME}-tune-1", lambda url: b"zip", lambda _: None) as made:
            tune_memory(lambda size: list(measure(made, size, PAYLOAD)), [128, 256, 3008], DEFAULT_SIZES, Goal())
    except KeyboardInterrupt:
        assert at is not None
    assert client.functions == {NAME: {"FunctionName": NAME, "MemorySize": 1024, "Description": "live"}}
    assert {name for name, _ in client.invocations} == {f"{NAME}-tune-1"}


def test_a_function_that_keeps_tenants_apart_is_invoked_for_one_of_ours_and_its_copy_keeps_none():
    client = FakeLambda(cpu_ms=100)
    client.functions[NAME]["TenancyConfig"] = {"TenantIsolationMode": "PER_TENANT"}
    assert advised(client).chosen_mb
    with copied(client, NAME, "copy", lambda url: b"zip", lambda _: None) as made:
        assert made.shoot(PAYLOAD[0]).failure is None


@pytest.mark.parametrize(
    ("alias", "function", "copied_from"),
    [
        pytest.param("live", NAME, "live", id="what-serves"),
        pytest.param(None, NAME, None, id="latest-without-an-alias"),
        pytest.param("7", f"{NAME}:7", "7", id="what-is-named"),
        pytest.param("7", f"arn:aws:lambda:us-east-1:111122223333:function:{NAME}:7", "7", id="by-arn"),
    ],
)
def test_a_copy_is_of_the_version_that_serves_or_is_named(alias, function, copied_from):
    client = FakeLambda(alias=alias)
    with copied(client, function, "copy", lambda url: b"zip", lambda _: None):
        assert client.described == [copied_from]


def test_a_version_that_is_named_and_not_there_is_no_other():
    client = FakeLambda(alias="live")
    with pytest.raises(NotFound), copied(client, f"{NAME}:8", "copy", lambda url: b"zip", lambda _: None):
        pass


def test_a_copy_has_the_layers_of_the_original():
    client = FakeLambda()
    with copied(client, NAME, "copy", lambda url: b"zip", lambda _: None):
        assert client.functions["copy"]["Layers"] == ["arn:aws:lambda:us-east-1:111122223333:layer:l:7"]
        assert client.functions["copy"]["Runtime"] == "python3.12"


def test_a_payload_that_fails_is_told_and_the_function_restored():
    client = FakeLambda(function_error="ValueError")
    with pytest.raises(UsageError, match=r"fails at 128 MB \(error ValueError\)"):
        advised(client)
    assert client.functions[NAME]["MemorySize"] == 1024


def test_a_failure_that_is_allowed_is_measured():
    client = FakeLambda(wait_ms=50, function_error="ValueError")
    shots = list(measure(Bench(client, NAME, lambda _: None), 512, PAYLOAD, Sampling(allowed=("ValueError",))))
    assert {shot.failure for shot in shots} == {"error ValueError"}


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        pytest.param(
            {"statusCode": 200, "body": '{"result": {"structuredContent": {"success": true}}}'}, None, id="good"
        ),
        pytest.param({"statusCode": 403, "body": ""}, "status 403", id="refused"),
        pytest.param(
            {
                "statusCode": 200,
                "body": 'event: message\ndata: {"result": {"structuredContent": {"success": false,'
                ' "error": {"name": "KeyError"}}}}\n\n',
            },
            "tool KeyError",
            id="tool-failed-in-sse",
        ),
    ],
)
def test_what_counts_as_a_failure(body, failure):
    report = report_in_tail("REPORT RequestId: r\tDuration: 1 ms\tBilled Duration: 1 ms\tMemory Size: 128 MB\t")
    assert bench._failure(report, None, json.dumps(body).encode()) == failure


def test_the_tools_own_cpu_time_is_read():
    usage = {"result": {"structuredContent": {"success": True, "usage": {"cpu_ms": 12.5}}}}
    assert bench.cpu_ms_of(json.dumps({"statusCode": 200, "body": json.dumps(usage)}).encode()) == 12.5
    assert bench.cpu_ms_of(b"not json") is None


def test_payloads_take_turns_by_weight():
    order = turns([Payload("a", "", 3), Payload("b", "", 1)])
    names = [next(order).name for _ in range(8)]
    assert names.count("a") == 6
    assert names[:4].count("b") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('{"a": 1}', [("f", '{"a": 1}', 1.0)], id="one-event"),
        pytest.param(
            '[{"payload": {"a": 1}, "weight": 30}, {"payload": "{}"}]',
            [("f#0", '{"a": 1}', 30.0), ("f#1", "{}", 1.0)],
            id="power-tunings-weighted-list",
        ),
    ],
)
def test_payload_files(text, expected):
    assert [(p.name, p.body, p.weight) for p in read_payloads(text, "f")] == expected


@pytest.mark.parametrize("text", ["not json", '[{"payload": 1, "weight": 0}]'])
def test_a_payload_file_that_is_none_is_refused(text):
    with pytest.raises(UsageError):
        read_payloads(text, "f")


def test_a_tail_without_a_report_is_an_error_and_not_a_zero():
    assert report_in_tail('{"type":"platform.rep') is None
    client = FakeLambda()
    client._tail = lambda *_: "nothing"
    with pytest.raises(OpsError, match="no REPORT"):
        Bench(client, NAME, lambda _: None).shoot(PAYLOAD[0])


def test_a_proxy_event_carries_the_call():
    event = json.loads(proxy_event("1 + 1"))
    assert json.loads(event["body"])["params"]["arguments"] == {"code": "1 + 1"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("A=1\nP_FN_MEMORY=512\nB=2\n", "A=1\nP_FN_MEMORY=1024\nB=2\n", id="replaced"),
        pytest.param("export A=1\n", "export A=1\nexport P_FN_MEMORY=1024\n", id="added-with-export"),
        pytest.param("A=1", "A=1\nP_FN_MEMORY=1024\n", id="added-after-no-newline"),
        pytest.param("# P_FN_MEMORY=1\n", "# P_FN_MEMORY=1\nP_FN_MEMORY=1024\n", id="comment-stays"),
        pytest.param("OP_FN_MEMORY=1\n", "OP_FN_MEMORY=1\nP_FN_MEMORY=1024\n", id="another-name-stays"),
    ],
)
def test_a_setting_is_written_and_nothing_else_changed(tmp_path, before, after):
    path = tmp_path / "environment.sh"
    path.write_text(before)
    write_setting(path, "P_FN_MEMORY", "1024")
    assert path.read_text() == after


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("BUCKET=a\nexport BUCKET='b'\n", "b", id="the-last-without-quotes"),
        pytest.param("#BUCKET=a\nMY_BUCKET=b\n", None, id="a-comment-and-another-name-are-none"),
        pytest.param("BUCKET=\n", None, id="empty-is-none"),
    ],
)
def test_a_setting_is_read(tmp_path, text, value):
    path = tmp_path / "environment.sh"
    assert read_setting(path, "BUCKET") is None
    path.write_text(text)
    assert read_setting(path, "BUCKET") == value


def test_the_command_tunes_writes_files_and_applies(tmp_path, monkeypatch):
    client = FakeLambda(cpu_ms=2000)
    monkeypatch.setattr(tune, "lambda_client", lambda account: client)
    monkeypatch.setattr(tune, "_download", lambda url: b"zip")
    settings = tmp_path / "environment.sh"
    settings.write_text("export P_FN_MEMORY=1024\n")
    around = Surroundings(lambda: datetime(2026, 11, 24, tzinfo=UTC), UTC, out=io.StringIO(), err=io.StringIO())
    argv = ["tune", "memory", "--function", NAME, "--endpoint-url", "http://127.0.0.1:1", "--apply"]
    argv += ["--settings", str(settings), "--out", str(tmp_path / "t")]
    assert run(argv, around) == 0
    assert settings.read_text() == "export P_FN_MEMORY=1536\n"
    assert "1536 MB <- chosen" in around.out.getvalue()
    advice = json.loads((tmp_path / "t" / "tune.json").read_text())
    assert validated(advice) == "ops-tune-memory/1"
    samples = (tmp_path / "t" / "samples.jsonl").read_text().splitlines()
    assert (advice["chosen_mb"], advice["invocations"]) == (1536, len(samples))
    assert (tmp_path / "t" / "tune.png").read_bytes().startswith(b"\x89PNG")


def logged_calls(count=40, duration=60.0, cpu=20.0):
    """Warm invocations at 512 MB whose code reports its CPU time, one cold."""
    for n in range(count):
        cold = "Init Duration: 300 ms\t" if n == 0 else ""
        report = f"REPORT RequestId: r{n}\tDuration: {duration} ms\tBilled Duration: 61 ms\tMemory Size: 512 MB\t{cold}"
        yield LogEvent(2 * n, 2 * n, "g", "s", f"{n}", report)
        record = {"tool": "execute_python", "outcome": "ok", "cpu_ms": cpu}
        yield LogEvent(2 * n, 2 * n, "g", "s", f"{n}c", json.dumps(record))


def test_one_size_in_the_logs_predicts_the_others_by_cpu_time():
    # 20 ms of CPU take 69.1 ms at 512 of 1769 MB; the rest of the duration is 10 ms of waiting.
    duration = 10 + 20 * 1769 / 512
    options = {
        o.memory_mb: o for o in predict_from_logs(fold(logged_calls(duration=duration)), [1024, 1769], Pricing())
    }
    assert options[512].measured == 39
    assert options[512].mean_ms == pytest.approx(duration)
    assert options[1769].mean_ms == pytest.approx(30)
    assert options[1024].mean_ms == pytest.approx(10 + 20 * 1769 / 1024)
    assert validated(asdict(Prediction(list(options.values()))) | {"schema": "ops-tune-prediction/1"})
    (row,) = (line for line in estimates_text(list(options.values()), None).splitlines() if "1769 MB" in line)
    assert row.split()[2:5] == ["predicted", "30.0", "30.0"]  # no interval of nothing known


@pytest.mark.parametrize("events", [[], list(logged_calls(1)), [e for e in logged_calls() if "REPORT" in e.message]])
def test_without_cpu_time_or_warm_invocations_nothing_is_predicted(events):
    with pytest.raises(Inconclusive, match="measure instead"):
        predict_from_logs(fold(events), [1024], Pricing())
