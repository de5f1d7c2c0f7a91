"""A deployment's settings: what they come to, and the sentence for a value that will not do."""

from __future__ import annotations

import pytest

from interpreter import engine, kernel
from settings import SettingsError, limits, make_interpreter


def test_the_functions_memory_leaves_room_for_the_host() -> None:
    assert limits({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024"}).memory_mb == 1024 - 170
    assert limits({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128"}).memory_mb == 64
    assert limits({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024", "INTERPRETER_MEMORY_MB": "300"}).memory_mb == 300
    assert limits({}).memory_mb == 512


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        pytest.param("INTERPRETER_TIMEOUT_S", "soon", "_TIMEOUT_S is 'soon'; it must be a number", id="word"),
        pytest.param("INTERPRETER_TIMEOUT_S", "-1", "it must be a number, at least 0.001", id="negative"),
        pytest.param("INTERPRETER_NETWORK", "some", "must be one of 'none', 'public'", id="network"),
        pytest.param("INTERPRETER_REQUIRE", "gvisor", "must be one of '', 'kernel'", id="require"),
    ],
)
def test_a_wrong_value_is_one_sentence(name: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        make_interpreter({name: value})


def test_kernel_can_be_required_and_then_refuses_to_start_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.kernel, "probe", lambda: kernel.Available(prctl=False, seccomp=False, landlock_abi=0))
    with pytest.raises(SettingsError, match="INTERPRETER_REQUIRE is kernel"):
        make_interpreter({"INTERPRETER_REQUIRE": "kernel"})
    make_interpreter({}).close()
