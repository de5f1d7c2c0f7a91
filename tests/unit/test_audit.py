"""The audit hook stands in one process with the code, so nothing that the code can find of it may be changeable."""

from __future__ import annotations

import dis
import ipaddress
import types
from collections.abc import Iterator
from typing import Any

import pytest

from interpreter import audit, judges
from interpreter.confinement import Limits
from interpreter.engine import Interpreter
from interpreter.judges import Policy

IMMUTABLE = (
    str, bytes, int, bool, float, type(None), frozenset, types.BuiltinFunctionType, types.MethodDescriptorType,
    types.WrapperDescriptorType, types.ClassMethodDescriptorType,
)  # fmt: skip
# Instructions by which a function reaches what is neither a constant nor an argument of it.
REACHES_OUT = {
    "LOAD_GLOBAL",
    "LOAD_NAME",
    "LOAD_DEREF",
    "LOAD_CLASSDEREF",
    "MAKE_FUNCTION",
    "IMPORT_NAME",
    "STORE_GLOBAL",
}


def loose_ends(function: types.FunctionType) -> Iterator[str]:
    """What of `function`, or of what it holds, could be changed by who gets hold of it."""
    seen: set[int] = set()

    def of(value: Any, path: str) -> Iterator[str]:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, types.FunctionType):
            for instruction in dis.get_instructions(value):
                if instruction.opname in REACHES_OUT:
                    yield f"{path} {instruction.opname} {instruction.argval}"
            if value.__kwdefaults__:
                yield f"{path} has keyword defaults, which are a dict"
            for name, default in zip(reversed(value.__code__.co_varnames[: value.__code__.co_argcount]),
                                     reversed(value.__defaults__ or ()), strict=False):  # fmt: skip
                yield from of(default, f"{path}.{name}")
        elif isinstance(value, tuple | frozenset):
            for item in value:
                yield from of(item, path)
        elif isinstance(value, type):
            # A class of C, or the exception that is raised: raising anything refuses.
            if value.__flags__ & (1 << 9) and value is not audit.SecurityError:  # Py_TPFLAGS_HEAPTYPE
                yield f"{path} is the changeable class {value.__name__}"
        elif not isinstance(value, IMMUTABLE):
            yield f"{path} is a {type(value).__name__}"

    yield from of(function, function.__name__)


@pytest.mark.parametrize("network", [False, True])
def test_nothing_the_hook_refers_to_can_be_changed(network: bool) -> None:
    policy = Policy(writable=("/tmp/run",), readable=("/usr/lib",), hidden=("/usr/lib/own",), network=network)
    table = audit._table(judges.judges(policy) | {"object.__setattr__": audit._our_functions()})
    hook = audit._hook(table, 4)
    assert isinstance(hook, types.FunctionType)
    assert list(loose_ends(hook)) == []


def test_a_changeable_hook_is_found_to_be_one() -> None:
    cell = ["x"]

    def with_a_cell(_args: Any) -> Any:
        return cell

    def with_a_list(_args: Any, names: Any = cell) -> Any:
        return names

    def with_a_global(_args: Any) -> Any:
        return len("x")

    def with_keywords(_args: Any, *, name: str = "x") -> Any:
        return name

    for function in (with_a_cell, with_a_list, with_a_global, with_keywords):
        assert isinstance(function, types.FunctionType)
        assert len(list(loose_ends(function))) == 1, function


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    made = Interpreter(Limits(timeout_s=20), scratch=tmp_path_factory.mktemp("scratch"), kernel_layer=False)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        pytest.param(
            "class E(int):\n    def __fspath__(self): return '/etc/hostname'\nopen(E(1 << 40)).read()",
            "open('?')",
            id="number-that-is-a-path-in-c",
        ),
        pytest.param(
            "class S(str):\n    __eq__ = lambda *_: True\n    __hash__ = str.__hash__\n"
            "import sqlite3\nsqlite3.connect(S('/tmp/zz'))",
            "sqlite3.connect('/tmp/zz')",
            id="text-equal-to-everything",
        ),
        pytest.param(
            "import sqlite3\nsqlite3.connect('file:/tmp/zz', uri=True)", "sqlite3.connect('/tmp/zz')", id="uri"
        ),
        pytest.param(
            "import sqlite3\nsqlite3.connect('file:%2Ftmp/zz', uri=True)",
            "sqlite3.connect('file:%2Ftmp/zz')",
            id="encoded-uri",
        ),
        pytest.param(
            "import os\nos.makedirs('a/b')\ntop = os.open('.', 0)\nos.chdir('a/b')\nos.open('../zz', 65, dir_fd=top)",
            "open('../zz')",
            id="above-a-descriptor",
        ),
        pytest.param("import os\nos.mkdir('a')\nos.symlink('../x', 'a/l')", "os.symlink('../x')", id="upward-link"),
        pytest.param("import os\nos.symlink(os.getcwd(), 'l')", None, id="absolute-link"),
        pytest.param("import os\nos.mkfifo('/tmp/zz')", "os.mkfifo", id="fifo"),
        pytest.param(
            "import os\nnames = (d + '/' + n for d, ns, _ in os.walk('/usr/lib') for n in ns)\n"
            "open(next(filter(os.path.islink, names)) + '/../x')",
            None,
            id="up-from-a-link-of-the-system",
        ),
        pytest.param("import gc, os\ngc.unfreeze()\nos.system('true')", "os.system", id="after-thawing"),
        pytest.param("import sys\nsys.activate_stack_trampoline('perf')", "sys.activate_stack_trampoline", id="perf"),
        pytest.param(
            "import ctypes, os\nctypes.CDLL('/usr/lib/../../' + os.getcwd() + '/x.so')", None, id="library-by-a-detour"
        ),
        pytest.param("import fcntl\nfcntl.fcntl(0, 8, 1)", "fcntl.fcntl(F_SETOWN)", id="signals-for-another"),
        pytest.param(
            "try:\n    import os\n    os.system('true')\nexcept OSError as e:\n"
            "    for x in e.__traceback__.tb_next.tb_frame.f_locals.values():\n        if hasattr(x, '__code__'):\n"
            "            x.__code__ = (lambda *a: None).__code__",
            "object.__setattr__",
            id="code-of-a-judge",
        ),
    ],
)  # fmt: skip
def test_a_way_around_is_refused(interpreter: Interpreter, code: str, refused: str | None) -> None:
    execution = interpreter.run(code).execution
    assert execution.error is not None, execution
    assert execution.error.type == "security", execution
    if refused is not None:
        assert execution.violations[-1] == refused


@pytest.mark.parametrize(
    ("code", "result"),
    [
        pytest.param("import os, pathlib, sqlite3\nc = sqlite3.connect(pathlib.Path('x.db'))\n"
                     "c.execute('create table t(a)')\nc.execute(\"attach 'y.db' as y\")\nsorted(os.listdir())",
                     "['x.db', 'y.db']", id="database-of-the-run"),
        pytest.param("import sqlite3\nsqlite3.connect('file::memory:?cache=shared', uri=True) is not None", "True",
                     id="shared-memory-database"),
        pytest.param("import os\nos.mkdir('a')\nos.symlink('a', 'l')\nopen('l/x', 'w').write('1')\nos.listdir('a')",
                     "['x']", id="downward-link"),
        pytest.param("import os\nos.mkdir('a')\nos.chdir('a')\nos.chdir('..')\nopen('a/../x', 'w').write('1')", "1",
                     id="directories-up-and-down"),
        pytest.param("import shutil, os\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()\nshutil.rmtree('a')\n"
                     "os.listdir()", "[]", id="rmtree-by-descriptors"),
        pytest.param("import tempfile, os\nwith tempfile.TemporaryDirectory() as d:\n"
                     "    open(d + '/x', 'w').write('1')\nos.listdir()", "[]", id="temporary-directory"),
        pytest.param("import shelve\nwith shelve.open('s') as s:\n    s['a'] = 1\nshelve.open('s')['a']", "1",
                     id="shelve"),
        pytest.param("import mmap\nm = mmap.mmap(-1, 10)\nm.write(b'a')\nm[:1]", "b'a'", id="mmap"),
        pytest.param("import numpy as np\na = np.memmap('m', mode='w+', shape=3)\na[:] = 2\nint(a.sum())", "6",
                     id="memmap"),
        pytest.param("def f(): return 1\nf.__code__ = (lambda: 2).__code__\nf()", "2", id="code-of-ones-own"),
    ],
)  # fmt: skip
def test_what_is_no_way_around_works(interpreter: Interpreter, code: str, result: str) -> None:
    execution = interpreter.run(code).execution
    assert (execution.result, execution.violations) == (result, []), execution


@pytest.mark.parametrize("name", ["readline", "_testcapi", "_posixshmem", "_dbm"])
def test_a_module_that_would_tell_nothing_is_not_there(interpreter: Interpreter, name: str) -> None:
    execution = interpreter.run(f"import sys\nsys.modules.pop({name!r}, None)\nimport {name}").execution
    assert execution.result == f"ModuleNotFoundError: No module named {name!r}"


@pytest.mark.parametrize(
    "hides",
    [
        pytest.param("os.close(4)", id="close"),
        pytest.param("os.dup2(1, 4)", id="redirect"),
        pytest.param("os.dup(4)\nos.dup2(os.open('/dev/null', 1), 4)", id="redirect-and-keep"),
        pytest.param("os.set_blocking(4, False)\ntry:\n    while True: os.write(4, bytes(4096))\nexcept OSError: pass",
                     id="fill"),
    ],
)  # fmt: skip
def test_a_refusal_that_cannot_be_told_ends_the_run(interpreter: Interpreter, hides: str) -> None:
    code = f"import os\n{hides}\ntry:\n    os.system('true')\nexcept OSError:\n    print('went on')"
    execution = interpreter.run(code).execution
    assert execution.stdout == "" or execution.violations == ["os.system"]
    assert execution.error is None or execution.error.type == "security"
    assert execution.error is None or execution.result.startswith("Security Error: ")
    assert (execution.error is None) == (execution.violations == ["os.system"])


def test_a_refusal_is_told_behind_whatever_the_code_has_written(interpreter: Interpreter) -> None:
    code = "import os\nos.write(4, b'x' * 5000)\ntry:\n    os.system('true')\nexcept OSError:\n    result = 1"
    execution = interpreter.run(code).execution
    assert (execution.result, execution.violations) == ("1", ["os.system"])


def test_a_database_elsewhere_is_not_attached(interpreter: Interpreter) -> None:
    execution = interpreter.run("import sqlite3\nsqlite3.connect('').execute(\"attach '/tmp/zz' as z\")").execution
    assert (execution.result, execution.violations) == ("DatabaseError: not authorized", ["sqlite3.attach('/tmp/zz')"])


def test_refusals_of_a_run_that_is_ended_are_told(interpreter: Interpreter) -> None:
    code = "import os\ntry:\n    os.system('true')\nexcept OSError:\n    os._exit(3)"
    execution = interpreter.run(code).execution
    assert execution.error is not None
    assert (execution.error.type, execution.violations) == ("exit", ["os.system"])


@pytest.mark.parametrize(
    "host",
    [
        "8.8.8.8", "1.1.1.1", "127.0.0.1", "10.1.2.3", "100.64.0.1", "169.254.169.254", "172.31.0.1", "172.32.0.1",
        "192.168.1.1", "192.0.2.1", "198.18.0.1", "203.0.113.9", "224.0.0.1", "255.255.255.255", "0.0.0.0",
        "2606:4700::1111", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "2001:db8::1", "::ffff:10.0.0.1",
        "::ffff:8.8.8.8", "ff02::1",
    ],
)  # fmt: skip
def test_public_addresses_are_those_of_the_registries(host: str) -> None:
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    assert judges.is_public(host) == (address.is_global and not address.is_multicast and mapped is None)


@pytest.mark.parametrize(
    "host", ["example.com", "", "127.1", "0x7f.1", "2130706433", "2002:7f00:1::", "64:ff9b::7f00:1"]
)
def test_what_is_no_literal_or_carries_another_address_is_not_public(host: str) -> None:
    assert not judges.is_public(host)
