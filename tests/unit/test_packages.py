"""Runtime installs from an index of the test's own: what is installed, reused, and refused with which sentence."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from interpreter import kernel, pip_confined
from interpreter.confinement import Limits
from interpreter.engine import Interpreter
from interpreter.packages import (
    _PIP_READS,
    PackageError,
    PackageInstaller,
    PackagePolicy,
    parse,
    pip_directory,
    preinstalled,
)


def wheel(index: Path, name: str, version: str, files: dict[str, str], requires: str = "") -> None:
    """A wheel of `files` on a simple index (PEP 503) below `index`."""
    directory = index / "simple" / name
    directory.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
        f"Requires-Dist: {requires}\n" if requires else ""
    )
    content = files | {
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    filename = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(directory / filename, "w") as archive:
        for path, text in (content | {f"{info}/RECORD": record + f"{info}/RECORD,,\n"}).items():
            archive.writestr(path, text)
    links = "".join(f'<a href="{path.name}">{path.name}</a>' for path in sorted(directory.iterdir()))
    (directory / "index.html").write_text(links)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("index")
    wheel(root, "pluswheel", "1.0", {"pluswheel.py": "def plus(a, b): return a + b\n"})
    wheel(root, "pluswheel", "2.0", {"pluswheel.py": "def plus(a, b): return 'two'\n"})
    wheel(
        root, "needsplus", "1.0", {"needsplus.py": "from pluswheel import plus\nvalue = plus(40, 2)\n"}, "pluswheel<2"
    )
    source = root / "simple" / "onlysource"
    source.mkdir()
    (source / "onlysource-1.0.tar.gz").write_bytes(b"")
    (source / "index.html").write_text('<a href="onlysource-1.0.tar.gz">onlysource-1.0.tar.gz</a>')

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple/"
    server.shutdown()


@pytest.fixture
def installer(index: str, tmp_path: Path) -> PackageInstaller:
    return PackageInstaller(tmp_path / "packages", PackagePolicy(index_url=index))


def test_a_call_can_bring_a_package_and_what_it_needs(index: str, tmp_path: Path) -> None:
    interpreter = Interpreter(Limits(timeout_s=30), packages=PackagePolicy(index_url=index), scratch=tmp_path)
    try:
        execution = interpreter.run("import needsplus\nneedsplus.value", ["needsplus"]).execution
        assert (execution.result, execution.error) == ("42", None)
        assert execution.usage.install_ms > 0
        assert interpreter.run("import needsplus").execution.error is not None, "for the call that asked only"
    finally:
        interpreter.close()


def test_what_is_preinstalled_costs_nothing(installer: PackageInstaller) -> None:
    assert installer.install(["numpy", "pandas>=2", "nope; python_version < '3'"]).paths == []
    assert not installer.directory.exists()


def test_the_same_requirements_are_installed_once(installer: PackageInstaller) -> None:
    first = installer.install(["pluswheel==1.0"])
    marker = Path(first.paths[0]).stat().st_ino
    assert installer.install(["pluswheel==1.0"]) == first
    assert Path(first.paths[0]).stat().st_ino == marker


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(lambda target: (target / "pluswheel.py").write_text("evil"), id="changed"),
        pytest.param(lambda target: (target / "json.py").write_text("evil"), id="added"),
        pytest.param(lambda target: (target / "pluswheel.py").unlink(), id="removed"),
    ],
)
def test_a_touched_install_is_not_reused(installer: PackageInstaller, tamper: object) -> None:
    target = Path(installer.install(["pluswheel==1.0"]).paths[0])
    tamper(target)  # type: ignore[operator]
    installer.install(["pluswheel==1.0"])
    assert "def plus" in (target / "pluswheel.py").read_text()
    assert not (target / "json.py").exists()


@pytest.mark.parametrize(
    ("requirement", "name", "says"),
    [
        pytest.param("--index-url=http://127.0.0.1/", "InvalidRequirement", "not a requirement", id="option"),
        pytest.param("-r /etc/passwd", "InvalidRequirement", "not a requirement", id="file-option"),
        pytest.param("git+https://127.0.0.1/x", "InvalidRequirement", "not a requirement", id="vcs"),
        pytest.param("x @ http://127.0.0.1/x.whl", "InvalidRequirement", "URL", id="url"),
        pytest.param("../x", "InvalidRequirement", "not a requirement", id="path"),
        pytest.param("", "InvalidRequirement", "not a requirement", id="empty"),
        pytest.param("no-such-package", "PackageNotFound", "not in the index", id="unknown"),
        pytest.param("onlysource", "PackageNotFound", "no wheel", id="source-only"),
        pytest.param("pluswheel==9", "PackageNotFound", "the index has wheels of 1.0, 2.0", id="no-such-version"),
    ],
)
def test_what_cannot_be_installed_is_told_by_kind(
    installer: PackageInstaller, requirement: str, name: str, says: str
) -> None:
    with pytest.raises(PackageError, match=says) as caught:
        installer.install([requirement])
    assert caught.value.name == name


def test_the_time_limit_is_over_everything(installer: PackageInstaller) -> None:
    with pytest.raises(PackageError, match=r"did not finish within 0\.05 seconds") as caught:
        installer.install(["pluswheel"], timeout_s=0.05)
    assert caught.value.name == "InstallTimeout"
    assert not list(installer.directory.glob("[0-9a-f]*")), "nothing half installed stays"


def test_one_failure_does_not_hide_another(installer: PackageInstaller) -> None:
    with pytest.raises(PackageError, match=r"no-such-a is not in the index.*; no-such-b is not in the index"):
        installer.install(["no-such-b", "pluswheel", "no-such-a"])


@pytest.mark.parametrize(
    ("policy", "requirement", "denied"),
    [
        pytest.param({"deny": {"pluswheel"}}, "pluswheel", "pluswheel", id="denied"),
        pytest.param({"deny": {"pluswheel"}}, "needsplus", "pluswheel", id="denied-as-a-dependency"),
        pytest.param({"allow": {"needsplus"}}, "pluswheel", "pluswheel", id="not-allowed"),
        pytest.param({"allow": {"needsplus"}}, "Needs.Plus", "Needs.Plus", id="another-name"),
    ],
)
def test_a_deployment_can_deny(
    index: str, tmp_path: Path, policy: dict[str, set[str]], requirement: str, denied: str
) -> None:
    limited = PackagePolicy(index, **{name: frozenset(names) for name, names in policy.items()})
    with pytest.raises(PackageError, match=f"does not allow {denied}") as caught:
        PackageInstaller(tmp_path / "packages", limited).install([requirement])
    assert caught.value.name == "PackageDenied"


def test_what_an_allowed_package_needs_may_come(index: str, tmp_path: Path) -> None:
    policy = PackagePolicy(index, allow=frozenset({"needsplus"}))
    assert PackageInstaller(tmp_path / "packages", policy).install(["needsplus"]).modules >= {"needsplus", "pluswheel"}


def test_no_network_is_said(tmp_path: Path) -> None:
    installer = PackageInstaller(tmp_path / "packages", PackagePolicy(index_url="http://127.0.0.1:9/simple/"))
    with pytest.raises(PackageError, match="cannot be reached") as caught:
        installer.install(["pluswheel"])
    assert caught.value.name == "NoNetwork"


def test_too_many_are_refused() -> None:
    with pytest.raises(PackageError, match="21 requirements were given"):
        parse(["x"] * 21)


def test_the_preinstalled_list_is_what_is_installed() -> None:
    names = dict(preinstalled())
    assert {"numpy", "pandas", "matplotlib", "mcp"} <= set(names)


@pytest.mark.skipif(not kernel.probe().whole, reason="this kernel grants no seccomp and Landlock")
def test_the_installer_is_confined(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    fake = tmp_path / "evil" / "pip" / "_internal" / "cli"
    fake.mkdir(parents=True)
    rest = 'from pkgutil import extend_path\n__path__ = extend_path(__path__, __name__)\n__version__ = "0"\n'
    for directory in (fake, *fake.parents[:2]):
        (directory / "__init__.py").write_text(rest)
    (fake / "main.py").write_text(f"""
import os
def main():
    for name, attempt in (("write", lambda: open({str(tmp_path / "outside")!r}, "w")), ("fork", os.fork)):
        try:
            attempt()
        except OSError as error:
            print(name, error.errno)
    open("inside", "w").close()
    return 0
""")
    home = str(tmp_path / "home")
    config = {
        "path": [str(tmp_path / "evil"), *sys.path, str(pip_directory())],
        "home": home,
        "readable": [str(tmp_path / "evil"), *sys.path, *_PIP_READS],
    }
    script = Path(pip_confined.__file__)
    command = [sys.executable, "-I", str(script), json.dumps(config)]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["write 13", "fork 1"], done
    assert (tmp_path / "home" / "inside").exists()
    assert not (tmp_path / "outside").exists()
