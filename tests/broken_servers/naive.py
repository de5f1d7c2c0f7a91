"""The easy interpreter: exec in the server's own process, and a list of forbidden words. It must fail by name.

Serves anyone's code with no protection: loopback only, tests only. `python naive.py 0` prints its URL when it is bound;
with --no-words nothing at all is forbidden, which shows that each attack of the corpus really attacks; with --same-seed
every call draws the same random numbers.
"""

import ast
import contextlib
import importlib
import io
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import traceback
import zipfile
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer

FORBIDDEN = ("os.system", "subprocess", "eval(", "exec(", "__import__", "shutil.rmtree")

server = MCPServer("naive")
words: list[str] = []
# A secret in a variable of the host, as servers have them.
api_secret = os.environ.get("AWS_SECRET_ACCESS_KEY")
same_seed = "--same-seed" in sys.argv


@server.tool()
def execute_python(code: str, requirements: list[str] | None = None) -> str:
    """Runs Python; takes any requirement."""
    install(requirements or [])
    if same_seed:
        reseed()
    for word in words:
        if word in code:
            told = f"Security Error: Blocked dangerous operation: {word}"
            return json.dumps({"success": False, "result": told, "stdout": "", "stderr": "", "warnings": ""})
    out, err = io.StringIO(), io.StringIO()
    names: dict[str, Any] = {"__name__": "__main__"}
    outcome: dict[str, Any] = {"success": True, "result": "Code executed successfully"}
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            outcome["result"] = str(run(code, names))
        except BaseException as error:
            outcome = {"success": False, "result": f"{type(error).__name__}: {error}"}
            traceback.print_exc()
    return json.dumps({**outcome, "stdout": out.getvalue(), "stderr": err.getvalue(), "warnings": ""})


def install(requirements: list[str]) -> None:
    """Installs what is not a plain name of an index, with no index: by pip, which builds whatever it is shown and reads
    whatever settings are there; and wheels by the names that stand in them."""
    for one in requirements:
        if not one.startswith(("/tmp/conformance", "-e/tmp/conformance", "conformance")):
            continue
        target = tempfile.mkdtemp()
        if one.endswith(".whl"):
            with zipfile.ZipFile(one) as wheel:
                for name in wheel.namelist():
                    path = os.path.join(target, name)
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "wb") as file:
                        file.write(wheel.read(name))
        else:
            pip = [f"{sys.base_prefix}/bin/python3", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
            told = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
            subprocess.run([*pip, "--target", target, one], check=False, timeout=30, env=plain, **told)
        sys.path.append(target)
    importlib.invalidate_caches()


def reseed() -> None:
    """Makes every call draw what the call before drew, as the children of one template do that are not reseeded."""
    random.seed(1)
    os.urandom = lambda size: b"1" * size
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(1)


def run(code: str, names: dict[str, Any]) -> Any:
    """Executes code; returns `result`, else the last expression's value."""
    tree = ast.parse(code)
    end = tree.body[-1] if tree.body else None
    last = end if isinstance(end, ast.Expr) else None
    if last:
        tree.body.pop()
    exec(compile(tree, "<code>", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "<code>", "eval"), names) if last else None
    return names.get("result", "Code executed successfully" if value is None else value)


@server.tool()
def list_preinstalled_packages() -> str:
    """Lists packages."""
    return "numpy, pandas, matplotlib"


@server.tool()
def get_environment_info() -> str:
    """Tells the version."""
    return sys.version


def main(port: int, forbidden: tuple[str, ...] = FORBIDDEN) -> None:
    """Serves in the foreground; the environment it is given stands for that of a function."""
    words.extend(forbidden)
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    app = server.streamable_http_app(stateless_http=True, json_response=True)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main(int(sys.argv[1]), () if "--no-words" in sys.argv else FORBIDDEN)
