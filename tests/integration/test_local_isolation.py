"""Given code inside an environment, this is what it can see and do there: what it could on Lambda, and no more."""

import errno
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from local_stack import LocalStack, local_stack

from sam.local.syscalls import REFUSED

PRCTL, LANDLOCK = REFUSED["prctl"][0], 444
PR_GET_DUMPABLE = 3


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with local_stack(tmp_path_factory.mktemp("stack"), "--env", "GIVEN=by flag") as running:
        if not running.isolated:
            pytest.skip(running.said)
        yield running


def ask(stack: LocalStack, **what: Any) -> Any:
    answer = stack.call(what)
    assert answer.status == 200, answer.body
    return answer.body["answer"]


def test_its_environment_variables_are_lambdas_and_the_templates(stack: LocalStack):
    seen = ask(stack, do="look")["environ"]
    assert (seen["COLOUR"], seen["GIVEN"]) == ("green", "by flag")
    assert seen["AWS_LAMBDA_FUNCTION_NAME"] == "echo"
    assert seen["AWS_EXECUTION_ENV"] == "AWS_Lambda_python3.12"
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", seen["AWS_LAMBDA_LOG_STREAM_NAME"])
    assert seen["LAMBDA_TASK_ROOT"] == "/var/task"
    assert not {"HOME", "USER", "VIRTUAL_ENV", "PWD", "TMPDIR"} & set(seen)


def test_it_sees_a_small_root_and_no_process_but_its_own(stack: LocalStack):
    seen = ask(stack, do="look")
    assert not {"root", "work", "boot", "srv", "sys", "run"} & set(seen["root"])
    assert seen["processes"] == [1, 2]
    assert seen["interfaces"] == ["lo"]
    assert seen["cwd"] == "/var/task"
    assert seen["uid"] != 0
    assert re.search(r"CapEff:\t0+\n", seen["status"])
    assert re.search(r"NoNewPrivs:\t1\n", seen["status"])


@pytest.mark.parametrize(
    ("path", "mode", "error"),
    [
        pytest.param(str(Path(__file__)), "r", "ENOENT", id="the-repository"),
        pytest.param(str(Path.home() / ".profile"), "r", "ENOENT", id="the-users-home"),
        pytest.param("/etc/shadow", "r", "ENOENT", id="etc"),
        pytest.param("/proc/1/environ", "r", "EACCES", id="init"),
        pytest.param("/dev/shm/x", "w", "ENOENT", id="shared-memory"),
        pytest.param("/dev/mem", "r", "ENOENT", id="a-device"),
        pytest.param("/var/task/x", "w", "EROFS", id="the-code"),
        pytest.param("/opt/python/x", "w", "EROFS", id="the-layer"),
        pytest.param("/var/lang/x", "w", "EROFS", id="the-language"),
        pytest.param("/usr/x", "w", "EROFS", id="usr"),
        pytest.param("/x", "w", "EROFS", id="the-root"),
        pytest.param("/proc/sys/kernel/hostname", "w", "EACCES", id="a-kernel-setting"),
    ],
)
def test_files_out_of_reach(stack: LocalStack, path: str, mode: str, error: str):
    assert ask(stack, do="open", path=path, mode=mode) == {"error": error}


def test_tmp_is_its_own_and_outlives_a_runtime_that_crashes(stack: LocalStack):
    assert ask(stack, do="open", path="/tmp/note", mode="w") == {"text": "1"}
    before = ask(stack, do="look")
    assert before["tmp"] == ["note"]
    assert stack.call({"do": "kill"}).status == 502
    after = ask(stack, do="look")
    assert after["tmp"] == ["note"]
    assert after["processes"][0] == 1
    assert after["environ"]["AWS_LAMBDA_LOG_STREAM_NAME"] == before["environ"]["AWS_LAMBDA_LOG_STREAM_NAME"]
    assert (after["uid"], after["status"].count("NoNewPrivs:\t1")) == (before["uid"], 1)
    first, second = two_environments(stack)
    assert sorted([first["tmp"], second["tmp"]]) == [[], ["note"]]


def two_environments(stack: LocalStack) -> list[Any]:
    """What two calls at the same time saw, which is two environments."""
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(stack.call, [{"do": "look", "wait": 1}] * 2))
    assert len({answer.body["environment"] for answer in answers}) == 2
    return [answer.body["answer"] for answer in answers]


@pytest.mark.parametrize(
    ("call", "number"),
    [
        pytest.param([PRCTL, PR_GET_DUMPABLE, 0, 0, 0, 0], errno.EPERM, id="prctl"),
        pytest.param([REFUSED["seccomp"][0], 0, 0, 0], errno.EPERM, id="seccomp"),
        pytest.param([REFUSED["ptrace"][0], 0, 0, 0, 0], errno.EPERM, id="ptrace"),
        pytest.param([REFUSED["unshare"][0], 0x10000000], errno.EPERM, id="unshare"),
        pytest.param([LANDLOCK, 0, 0, 1], errno.ENOSYS, id="landlock"),
    ],
)
def test_system_calls_that_lambda_refuses(stack: LocalStack, call: list[int], number: int):
    assert ask(stack, do="syscall", call=call) == {"result": -1, "errno": number}


def test_with_kernel_confinement_they_are_left_to_the_function(tmp_path: Path):
    with local_stack(tmp_path, "--confinement", "kernel") as open_stack:
        assert ask(open_stack, do="syscall", call=[PRCTL, PR_GET_DUMPABLE, 0, 0, 0, 0])["errno"] == 0


def test_credentials_differ_between_environments(stack: LocalStack):
    first, second = (seen["environ"] for seen in two_environments(stack))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_LOG_STREAM_NAME"):
        assert first[name] != second[name]
