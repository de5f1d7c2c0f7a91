"""The layer's own checks: what would not load, what does not fit, what is trimmed, and when it is built again."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

import pytest

from sam.dependencies import layer
from sam.dependencies.layer import Facts, Plan


def elf(*, offset: int = 0x1000, address: int = 0x1000, align: int = 0x1000, in_file: int = 0x10) -> bytes:
    """A 64-bit ELF of one load segment (elf(5)), 0x2000 bytes long."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, offset, address, address, in_file, in_file, align)
    return (ident + header + segment).ljust(0x2000, b"\0")


@pytest.mark.parametrize(
    ("content", "loads"),
    [
        pytest.param(elf(), True, id="sound"),
        pytest.param(elf(offset=0x1008), False, id="not-page-aligned"),  # what stripping did to auditwheel's libraries
        pytest.param(elf(in_file=0x4000), False, id="cut-short"),
        pytest.param(b"#!/bin/sh\n", False, id="not-elf"),
    ],
)
def test_what_the_loader_would_refuse(content: bytes, loads: bool) -> None:
    assert layer.loadable(content) == loads


def pins(file: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", file.read_text(), re.MULTILINE))


def test_what_is_deployed_is_what_is_tested() -> None:
    deployed, tested = pins(layer.PINS), pins(layer.ROOT / "requirements" / "dev.txt")
    assert {"numpy", "pandas", "mcp"} <= set(deployed)
    assert {name: version for name, version in deployed.items() if tested.get(name) != version} == {}
    listed = re.findall(r"^([a-z-]+)", (layer.HERE / "requirements.in").read_text(), re.MULTILINE)
    assert set(listed) <= set(deployed)


def test_a_library_that_would_not_load_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "good.cpython-312-x86_64-linux-gnu.so").write_bytes(elf())
    layer.check_loadable(tmp_path)
    (tmp_path / "libbad.so.1.2").write_bytes(elf(offset=0x1008))
    with pytest.raises(layer.BuildError, match=r"1 libraries would not load after stripping: libbad.so.1.2"):
        layer.check_loadable(tmp_path)


def test_a_strip_that_breaks_a_library_is_not_taken(tmp_path: Path) -> None:
    """The strip here writes what the loader refuses; it must not touch *.libs at all."""
    strip = tmp_path / "strip"
    strip.write_text('#!/bin/sh\nprintf short > "$3"\n')
    strip.chmod(0o755)
    target = tmp_path / "python"
    for name in ("numpy/core.so", "numpy.libs/blas.so"):
        (target / name).parent.mkdir(parents=True)
        (target / name).write_bytes(elf())
    layer.strip_symbols(target, str(strip))
    assert {path.name for path in target.rglob("*.so*")} == {"core.so", "blas.so"}
    layer.check_loadable(target)


def test_tests_and_sources_go_and_what_is_imported_stays(tmp_path: Path) -> None:
    kept = {
        "pandas/core/frame.py",
        "numpy/testing/__init__.py",
        "sklearn/datasets/data/iris.csv",
        "numpy-2.dist-info/METADATA",
        "jsonschema_specifications/schemas/draft7",
        "fontTools/misc/bezierTools.py",
    }
    gone = {
        "pandas/tests/test_frame.py",
        "joblib/test/data.py",
        "numpy/core.pyi",
        "numpy/core/include/x.h",
        "numpy-2.dist-info/RECORD",
        "fontTools/misc/bezierTools.cpython-312.so",
        "bin/f2py",
        "share/man/x.1",
    }
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    layer.trim(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_bytecode_takes_the_place_of_sources_and_imports(tmp_path: Path) -> None:
    package = tmp_path / "pure"
    package.mkdir()
    (package / "__init__.py").write_text('"""Long."""\nassert False\nVALUE = 5\n')
    layer.compile_bytecode(sys.executable, tmp_path)
    assert [path.name for path in package.iterdir()] == ["__init__.pyc"]
    assert b"/opt/python/pure/__init__.py" in (package / "__init__.pyc").read_bytes()
    assert b"Long." not in (package / "__init__.pyc").read_bytes()
    (package / "__init__.pyc").unlink()
    (package / "__init__.py").write_text('"""Long."""\n')
    layer.compile_bytecode(sys.executable, tmp_path, docstrings=True)
    assert b"Long." in (package / "__init__.pyc").read_bytes()


def test_a_module_that_does_not_compile_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def\n")
    with pytest.raises(layer.BuildError, match="a module does not compile"):
        layer.compile_bytecode(sys.executable, tmp_path)


def test_the_smoke_fails_on_a_layer_without_its_libraries(tmp_path: Path) -> None:
    with pytest.raises(layer.BuildError, match=r"the layer fails its smoke: (?s:.*)No module named 'numpy'"):
        layer.smoke(sys.executable, tmp_path)


@pytest.fixture
def there(tmp_path: Path) -> Plan:
    """A plan whose layer is built already, of one small file."""
    plan = Plan("arm64", "3.12", tmp_path / "layer")
    (plan.out / "python" / "numpy").mkdir(parents=True)
    (plan.out / "python" / "numpy" / "core.pyc").write_bytes(bytes(3 << 20))
    facts = Facts(layer._key(plan), "arm64", "3.12", 3 << 20, 1 << 20)
    (tmp_path / "layer.json").write_text(layer.json.dumps(layer.asdict(facts)))
    return plan


def test_a_current_layer_is_not_built_again(there: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert layer.run(["--arch", "arm64", "--out", str(there.out)]) == 0
    said = capsys.readouterr()
    assert "is current (arm64, Python 3.12)" in said.err
    assert [line.split() for line in said.out.splitlines()][1:3] == [["3.0", "numpy"], ["3.0", "the", "layer"]]
    assert layer.built(Plan("x86_64", "3.12", there.out)) is None
    assert layer.built(Plan("arm64", "3.12", there.out, docstrings=True)) is None


def test_a_layer_over_the_limit_is_refused(
    there: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layer, "LIMIT_BYTES", (4 << 20) + 1)
    assert layer.run(["--arch", "arm64", "--out", str(there.out)]) == 0
    monkeypatch.setattr(layer, "LIMIT_BYTES", 4 << 20)
    assert layer.run(["--arch", "arm64", "--out", str(there.out)]) == 1
    assert "4.0 MiB unzipped, 0.0 MiB over Lambda's" in capsys.readouterr().err


def test_a_python_that_is_not_here_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert layer.find_python("3.12") == sys.executable
    with pytest.raises(
        layer.BuildError, match=r"bytecode for Python 3.14 needs a python3.14; .*uv python install 3.14"
    ):
        layer.find_python("3.14")
    with pytest.raises(
        layer.BuildError, match=r"neither aarch64-linux-gnu-strip nor llvm-strip is here; apt-get install"
    ):
        layer.find_strip("arm64" if layer.platform.machine() == "x86_64" else "x86_64")
