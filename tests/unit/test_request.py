"""What a request tells about itself, and what is told of one that is about to be killed."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from request import Request, environment_id, renew_environment_id

HANGS = """
import sys
sys.path.insert(0, sys.argv[1])
from types import SimpleNamespace
from request import Request, environment_id, renew_environment_id
context = SimpleNamespace(get_remaining_time_in_millis=lambda: 600)
def stuck_here():
    sys.stdin.read()
with Request(context).stacks_at_deadline():
    stuck_here()
"""


def test_a_request_that_nears_its_end_tells_where_it_is() -> None:
    command = [sys.executable, "-c", HANGS, str(_function())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = ""
        while "stuck_here" not in told:
            line = process.stderr.readline()
            assert line, told
            told += line
        process.communicate()  # its input ends, and it with it
    assert "Timeout" in told
    assert process.returncode == 0


def _function() -> str:
    import request

    return str(request.__file__).rpartition("/")[0]


@pytest.mark.parametrize(
    ("left_ms", "seconds"), [pytest.param(10_000, 8.5, id="less-a-margin"), pytest.param(900, 0.1, id="nothing-left")]
)
def test_the_deadline_leaves_time_to_answer(left_ms: int, seconds: float) -> None:
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: left_ms)
    assert Request(context).seconds_left() == seconds


def test_without_a_platform_there_is_no_deadline_and_no_header() -> None:
    request = Request(timings={"exec": 1.234})
    assert request.seconds_left() is None
    with request.stacks_at_deadline():
        assert request.headers() == [(b"server-timing", b"exec;dur=1.2")]


def test_environments_of_one_snapshot_are_told_apart() -> None:
    before = environment_id()
    renew_environment_id()
    assert environment_id() != before
