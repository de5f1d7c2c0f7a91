"""What code that got past the audit hook can read of the process it was sent to, with and without its exec wrapper."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from local_stack import ROOT, call, local_stack

CODE = """import os
def parent(pid):
    return open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[1]
host, opened = parent(os.getppid()), []
for name in ('environ', 'mem', 'maps', 'auxv'):
    try:
        open(f'/proc/{host}/{name}', 'rb').close()
        opened.append(name)
    except PermissionError:
        pass
try:
    opened += os.listdir(f'/proc/{host}/fd')[:1]
except PermissionError:
    pass
(b'awslambdaric' in open(f'/proc/{host}/cmdline', 'rb').read(), opened)"""


@pytest.mark.parametrize(
    ("wrapper", "opened"),
    [
        pytest.param((), [], id="execute-only"),
        pytest.param(("--env", "AWS_LAMBDA_EXEC_WRAPPER="), ["environ", "mem", "maps", "auxv", "0"], id="as-it-comes"),
    ],
)
def test_what_code_can_open_of_the_handler(tmp_path: Path, wrapper: tuple[str, ...], opened: list[str]) -> None:
    template = ("--template", str(ROOT / "sam" / "template.yaml"))
    with local_stack(tmp_path, *template, "--env", "INTERPRETER_AUDIT_HOOK=off", *wrapper) as stack:
        if not stack.isolated:
            pytest.skip("this host gives environments no processes of their own")
        _, result = call(stack, CODE)
        assert ast.literal_eval(result["result"]) == (True, opened)
        ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "get_environment_info"}}
        info = stack.call(ask, Content_Type="application/json", Accept="application/json, text/event-stream").body[
            "result"
        ]["structuredContent"]
        active = {layer["name"]: layer["active"] for layer in info["confinement"]}
        assert active["execute-only-host"] == (not opened)
