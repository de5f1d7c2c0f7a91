"""A foreign interpreter over stdin and stdout: other names for everything, the output in a line of text, no isError.

Runs code in its own process with no protection: tests only. `python stdio.py end` ends before it answers anything.
"""

import contextlib
import io
import json
import sys
from typing import Any

TOOL = {"name": "run_cell", "inputSchema": {"type": "object", "required": ["source"],
        "properties": {"source": {"type": "string"}, "cell": {"type": "integer"}}}}  # fmt: skip


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """The result of a method; KeyError for an unknown one."""
    if method == "initialize":
        return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": "foreign", "version": "1"}}  # fmt: skip
    if method == "ping":
        return {}
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method != "tools/call" or params.get("name") != "run_cell":
        raise KeyError(method)
    arguments = params["arguments"]
    assert arguments["cell"] == 1
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(arguments["source"], {})
        text = f"[1] ok\n---\n{out.getvalue()}"
    except Exception as error:
        text = f"[1] failed: {type(error).__name__}: {error}\n---\n{out.getvalue()}"
    return {"content": [{"type": "text", "text": text}]}


def main() -> None:
    """Serves until its input ends."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        envelope: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            envelope["result"] = answer(message["method"], message.get("params", {}))
        except KeyError as error:
            envelope["error"] = {"code": -32601, "message": f"not here: {error}"}
        except Exception as error:
            envelope["error"] = {"code": -32602, "message": type(error).__name__}
        print(json.dumps(envelope), flush=True)


if __name__ == "__main__" and sys.argv[1:] != ["end"]:
    main()
