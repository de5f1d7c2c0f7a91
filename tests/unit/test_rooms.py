"""Arrows between the rooms run one way: an endpoint's address is all that the harness knows of what it judges.

And none runs in a circle within a room.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTION = {path.stem for path in (ROOT / "function").glob("*.py")} | {"interpreter"}
ROOMS = {"sam", "conformance", "load", "ops", "check", "tests", "lambda_code_interpreter"}
# Who may import whom. `check` runs the other rooms' commands as processes; `sam/local` so runs the function.
MAY = {
    "function": set(),
    "sam": set(),
    "conformance": set(),
    "load": set(),
    "ops": set(),
    "check": set(),
    "lambda_code_interpreter": {"conformance", "load", "ops", "check"},
}


def imports(source: str) -> Iterator[str]:
    """Top-level names of the modules that `source` imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def arrows(room: str, source: str) -> set[str]:
    """The other rooms that `source`, a file of `room`, imports."""
    names = set(imports(source))
    found = (names & ROOMS) - {room}
    return found | ({"function"} if room != "function" and names & FUNCTION else set())


@pytest.mark.parametrize("room", MAY)
def test_arrows_run_one_way(room: str) -> None:
    files = [path for path in (ROOT / room).rglob("*.py") if ".aws-sam" not in path.parts]
    against = {
        str(path.relative_to(ROOT)): wrong for path in files if (wrong := arrows(room, path.read_text()) - MAY[room])
    }
    assert files
    assert against == {}


@pytest.mark.parametrize(
    ("room", "source", "found"),
    [
        pytest.param("load", "from function_of_ours import x\nimport ops.logs", {"ops"}, id="another-room"),
        pytest.param(
            "ops", "def f():\n    from interpreter.engine import Interpreter", {"function"}, id="the-function"
        ),
        pytest.param("sam", "from sam.local import stack\nfrom . import pool", set(), id="its-own"),
    ],
)
def test_an_arrow_is_seen(room: str, source: str, found: set[str]) -> None:
    assert arrows(room, source) == found


def within(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Module -> the modules of the same room that it imports when it is imported itself, by their dotted names."""
    graph = {}
    for module, source in sources.items():
        found = set()
        for node in ast.parse(source).body:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = module.split(".")[: -node.level] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        graph[module] = (found & sources.keys()) - {module}
    return graph


def graph_of(room: str) -> dict[str, set[str]]:
    root = ROOT / "function" if room == "function" else ROOT
    files = [path for path in (ROOT / room).rglob("*.py") if path.name != "__init__.py"]
    return within({".".join(path.relative_to(root).with_suffix("").parts): path.read_text() for path in files})


@pytest.mark.parametrize("room", MAY)
def test_no_room_imports_itself_in_a_circle(room: str) -> None:
    graph = graph_of(room)
    assert room == "lambda_code_interpreter" or any(graph.values())
    TopologicalSorter(graph).prepare()


def test_a_circle_is_seen() -> None:
    sources = {"sam.a": "from . import b", "sam.b": "from sam.c import x", "sam.c": "def f():\n    import sam.a"}
    TopologicalSorter(within(sources)).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter(within(sources | {"sam.c": "import sam.a"})).prepare()


def test_the_handler_imports_nothing_that_stands_beside_the_code() -> None:
    """What is in the code's own process is not trusted there, and would cost a cold start its import."""
    graph, reached, found = graph_of("function"), {"handler"}, {"handler"}
    while found:
        found = {module for name in found for module in graph[name]} - reached
        reached |= found
    assert "interpreter.engine" in reached
    beside = {f"interpreter.{name}" for name in ("audit", "child", "judges", "zygote")}
    assert beside <= graph.keys()
    assert reached & beside == set()
