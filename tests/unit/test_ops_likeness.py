"""Given call records, which hold no code, payloads are made that take what the calls took, in their mix."""

import json
import subprocess
import sys

import pytest

from ops.failures import Inconclusive
from ops.likeness import Demand, code_of, mix_of, payloads_like
from ops.logs import LogEvent

BASELINE_MB = 40.0


def call(n, size=512, **fields):
    """The record and the REPORT of one call."""
    record = {"requestId": f"r{n}", "message": "tool call", "tool": "execute_python", "outcome": "ok"}
    record |= {"cpu_ms": 20.0, "wall_ms": 100.0, "max_rss_mb": BASELINE_MB, "code_sha256": "x"} | fields
    report = (
        f"REPORT RequestId: r{n}\tDuration: 9 ms\tBilled Duration: 9 ms\tMemory Size: {size} MB\tMax Memory Used: 9 MB"
    )
    for k, message in enumerate([json.dumps(record), report]):
        yield LogEvent(2 * n + k, 2 * n + k, "g", "s", f"{n}-{k}", message)


def calls(*of):
    return mix_of(event for n, fields in enumerate(of) for event in call(n, **fields))


def test_waiting_is_what_cpu_time_at_that_size_does_not_explain():
    # 20 ms of CPU at 512 of 1769 MB take 69.1 ms; 100 ms passed.
    assert calls({}).demands == [Demand(20.0, pytest.approx(100 - 20 * 1769 / 512), BASELINE_MB)]
    assert calls({"size": 3008}).demands[0].wait_ms == pytest.approx(80)
    assert calls({"wall_ms": 10.0}).demands[0].wait_ms == 0


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        pytest.param({"outcome": "error", "error_type": "security"}, "failed", id="failed"),
        pytest.param({"requirements": ["tinydb"]}, "installed packages", id="installed"),
        pytest.param({"cpu_ms": None}, "lack a REPORT or their usage", id="without-usage"),
    ],
)
def test_what_cannot_be_imitated_is_left_out_and_counted(fields, why):
    mix = calls({}, fields)
    assert (len(mix.demands), mix.left_out) == (1, {why: 1})


def test_a_call_without_its_report_is_left_out():
    assert mix_of([next(call(1))]).left_out == {"lack a REPORT or their usage": 1}


def test_classes_from_light_to_heavy_and_other_tools_by_their_weights():
    light, heavy = [{"cpu_ms": 1.0, "wall_ms": 5.0}] * 20, [{"cpu_ms": 500.0, "wall_ms": 5000.0}] * 5
    others = [{"tool": "get_environment_info"}] * 3
    payloads = payloads_like(calls(*heavy, *light, *others))
    assert [p.weight for p in payloads] == [5.0] * 5 + [3.0]
    assert [p.name.split(" of CPU")[0] for p in payloads] == ["1 ms"] * 4 + ["500 ms", "get_environment_info"]
    body = json.loads(json.loads(payloads[-1].body)["body"])
    assert body["params"] == {"name": "get_environment_info", "arguments": {}}


def test_too_few_calls_make_no_mix():
    with pytest.raises(Inconclusive, match=r"19 good calls of execute_python \(1 that failed\)"):
        payloads_like(calls(*[{}] * 19, {"outcome": "error"}))


def test_the_code_takes_what_it_says():
    code = code_of(Demand(cpu_ms=150.0, wait_ms=50.0, memory_mb=BASELINE_MB + 64), BASELINE_MB)
    told = (
        "\nimport re, time\npeak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]"
        "\nprint(peak, time.process_time())"
    )
    bare, made = (
        subprocess.run([sys.executable, "-I", "-c", text + told], capture_output=True, text=True, check=True)
        for text in ("", code)
    )
    bare, made = bare.stdout.split(), made.stdout.split()
    grown_mb = (float(made[0]) - float(bare[0])) / 1024
    assert 60 <= grown_mb <= 80
    assert float(made[1]) >= 0.15
