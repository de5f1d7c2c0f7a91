"""An index whose packages attack who installs them: refused, or without any effect outside the call that asked."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import stat
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from interpreter import packages
from interpreter.confinement import Limits
from interpreter.engine import Interpreter
from interpreter.packages import MAX_INSTALLED_MB, PackageError, PackageInstaller, PackagePolicy

MODULE = "value = 42\n"


class Index:
    """A simple index (PEP 503) below `root`, served at `url`; its packages write to `loot` where they get that far."""

    def __init__(self, root: Path, url: str, loot: Path) -> None:
        self.root, self.url, self.loot = root, url, loot

    def page(self, name: str, *links: str) -> None:
        directory = self.root / "simple" / name
        directory.mkdir(parents=True, exist_ok=True)
        here = [path.name for path in sorted(directory.iterdir()) if path.name != "index.html"]
        (directory / "index.html").write_text(
            "".join(f'<a href="{link}">{Path(link).name}</a>' for link in (*here, *links))
        )

    def wheel(
        self, name: str, files: dict[str, str], *, requires: str = "", called: str = "", record: str | None = None,
        links: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        """A wheel of `files`, named as it pleases: `called` is the name in its metadata, `links` its symlinks."""
        directory = self.root / "simple" / name
        directory.mkdir(parents=True, exist_ok=True)
        info = f"{name}-1.0.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {called or name}\nVersion: 1.0\n"
        content = files | {
            f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        lines = [f"{path},sha256={_digest(text)},{len(text)}" for path, text in content.items()]
        content[f"{info}/RECORD"] = record if record is not None else "\n".join([*lines, f"{info}/RECORD,,", ""])
        with zipfile.ZipFile(directory / f"{name}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
            for path, text in content.items():
                archive.writestr(path, text)
            for path, target in (links or {}).items():
                entry = zipfile.ZipInfo(path)
                entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
                archive.writestr(entry, target)
        self.page(name)

    def source(self, name: str, *, filename: str = "", listed: bool = True) -> str:
        """A source distribution whose build leaves its loot; gives its address."""
        directory = self.root / ("simple" if listed else "files") / name
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / (filename or f"{name}-1.0.tar.gz")
        backend = f"open({str(self.loot / name)!r}, 'w').close()\n"
        files = {
            "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
            "backend.py": backend,  # of its own, so that nothing has to be installed before it runs
            "setup.py": backend,
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        }
        with tarfile.open(path, "w:gz") as archive:
            for inner, text in files.items():
                entry = tarfile.TarInfo(f"{name}-1.0/{inner}")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        if listed:
            self.page(name)
        return f"{self.url}files/{name}/{path.name}"


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    root, loot = tmp_path / "index", tmp_path / "loot"
    root.mkdir()
    loot.mkdir(mode=0o777)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Index(root, f"http://127.0.0.1:{server.server_port}/", loot)
    server.shutdown()
    server.server_close()


@pytest.fixture
def installer(index: Index, tmp_path: Path) -> PackageInstaller:
    return PackageInstaller(tmp_path / "home" / "packages", PackagePolicy(index_url=index.url + "simple/"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def as_in_lambda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The installer without the layer that Lambda's kernel does not grant to its process."""
    script = tmp_path / "without_kernel.py"
    script.write_text(
        f"import json, sys\nsys.path.insert(0, {str(Path(packages.__file__).parents[1])!r})\n"
        "from interpreter import kernel, pip_confined\nkernel.probe = lambda: kernel.NONE\n"
        "sys.exit(pip_confined.main(json.loads(sys.argv.pop(1))))\n"
    )
    popen = subprocess.Popen

    def without(command: list[str], **more: Any) -> Any:
        swapped = [str(script) if word.endswith("pip_confined.py") else word for word in command]
        return popen(swapped, **more)

    monkeypatch.setattr(packages.subprocess, "Popen", without)


def attempt(installer: PackageInstaller, requirement: str) -> tuple[Path | None, str | None]:
    """Where it was installed, or the name of the error."""
    try:
        return Path(installer.install([requirement]).paths[0]), None
    except PackageError as error:
        return None, error.name


def outside(home: Path, target: Path | None) -> set[str]:
    """Files of the installer's surroundings that no package was to write."""
    found = (path for path in home.rglob("*") if not path.is_dir() or path.is_symlink())
    return {str(path) for path in found if target is None or target not in path.parents}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("../evil.py", id="climbs"),
        pytest.param("{loot}/evil.py", id="absolute"),
        pytest.param("bad-1.0.data/scripts/../../../evil.py", id="climbs-out-of-scripts"),
        pytest.param("bad-1.0.data/purelib/../../../evil.py", id="climbs-out-of-a-scheme"),
        pytest.param("bad-1.0.data/nothing/evil.py", id="scheme-that-is-none"),
    ],
)
def test_a_name_that_climbs_out_writes_nothing_there(
    index: Index, installer: PackageInstaller, home: Path, path: str
) -> None:
    index.wheel("bad", {"bad.py": MODULE, path.format(loot=index.loot): "evil"})
    target, error = attempt(installer, "bad")
    assert error in (None, "InstallFailed")
    assert outside(home, target) == set()
    assert list(index.loot.iterdir()) == []


def test_a_symlink_of_a_wheel_is_none(index: Index, installer: PackageInstaller, home: Path) -> None:
    index.wheel("bad", {"bad.py": MODULE}, links={"bad_link": str(index.loot), "bad_link/evil.py": "x = 1"})
    target, error = attempt(installer, "bad")
    assert error in (None, "InstallFailed")
    assert target is None or not any(path.is_symlink() for path in target.rglob("*"))
    assert outside(home, target) == set()
    assert list(index.loot.iterdir()) == []


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param("listed", id="on-the-index"),
        pytest.param("needed", id="as-a-dependency"),
        pytest.param("needed-by-address", id="as-a-dependency-by-its-address"),
        pytest.param("disguised", id="named-as-a-wheel"),
    ],
)
def test_no_build_of_a_source_distribution_runs(
    index: Index, installer: PackageInstaller, home: Path, shape: str, as_in_lambda: None
) -> None:
    """A build is code of the package's, run before anyone could look at it."""
    if shape == "disguised":
        index.source("bad", filename="bad-1.0-py3-none-any.whl")
    else:
        address = index.source("evil" if shape != "listed" else "bad", listed=shape != "needed-by-address")
        if shape != "listed":
            index.wheel("bad", {"bad.py": MODULE}, requires="evil" if shape == "needed" else f"evil @ {address}")
    with pytest.raises(PackageError) as caught:
        installer.install(["bad"])
    assert list(index.loot.iterdir()) == [], "its build ran"
    assert caught.value.name in ("PackageNotFound", "InstallFailed")


@pytest.mark.parametrize(
    ("called", "requirement"),
    [
        pytest.param("evil", "bad", id="another-name-inside"),
    ],
)
def test_a_wheel_is_what_it_is_called(
    index: Index, installer: PackageInstaller, home: Path, called: str, requirement: str
) -> None:
    index.wheel("bad", {"bad.py": MODULE}, called=called)
    with pytest.raises(PackageError) as caught:
        installer.install([requirement])
    assert caught.value.name in ("PackageNotFound", "InstallFailed")
    assert outside(home, None) == set()


def test_a_denied_name_does_not_come_under_another(index: Index, tmp_path: Path, home: Path) -> None:
    """By its address a dependency may say one name and be another."""
    index.wheel("evil", {"evil.py": MODULE})
    address = f"{index.url}simple/evil/evil-1.0-py3-none-any.whl"
    index.wheel("bad", {"bad.py": MODULE}, requires=f"evil @ {address}")
    policy = PackagePolicy(index_url=index.url + "simple/", deny=frozenset({"evil"}))
    with pytest.raises(PackageError) as caught:
        PackageInstaller(home / "packages", policy).install(["bad"])
    assert caught.value.name in ("PackageDenied", "InstallFailed")


@pytest.mark.parametrize(
    "record",
    [
        pytest.param("bad.py,sha256=AAAA,1\n", id="wrong-digests"),
        pytest.param("../../../loot/evil,,\n/etc/passwd,,\n", id="files-of-others"),
    ],
)
def test_a_record_that_lies_changes_nothing_else(
    index: Index, installer: PackageInstaller, home: Path, record: str
) -> None:
    (index.loot / "evil").write_text("stays")
    index.wheel("bad", {"bad.py": MODULE}, record=record)
    target, error = attempt(installer, "bad")
    assert error in (None, "InstallFailed")
    assert target is None or (target / "bad.py").read_text() == MODULE
    assert outside(home, target) == set()
    assert (index.loot / "evil").read_text() == "stays"


@pytest.mark.parametrize(
    "sizes_mb",
    [
        pytest.param([MAX_INSTALLED_MB // 2 + 1] * 2, id="many-files"),
        pytest.param([300], id="one-file"),
    ],
)
def test_what_unpacks_to_too_much_is_removed(
    index: Index, installer: PackageInstaller, home: Path, sizes_mb: list[int]
) -> None:
    """A wheel of a few hundred kilobytes."""
    index.wheel("bad", {"bad.py": MODULE} | {f"bad_{n}.dat": "\0" * (size << 20) for n, size in enumerate(sizes_mb)})
    with pytest.raises(PackageError) as caught:
        installer.install(["bad"])
    assert caught.value.name in ("PackageTooLarge", "InstallFailed")
    assert outside(home, None) == set()


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(".config/pip/pip.conf", id="of-today"),
        pytest.param(".pip/pip.conf", id="of-old"),
    ],
)
def test_settings_that_code_laid_there_are_not_read(
    index: Index, installer: PackageInstaller, home: Path, settings: str
) -> None:
    """User code runs under the installer's uid, and the installer's home outlives the call: it could name an index."""
    index.wheel("good", {"good.py": MODULE})
    path = installer.directory / settings
    path.parent.mkdir(parents=True)
    path.write_text("[global]\nno-index = true\nextra-index-url = http://127.0.0.1:9/simple/\n")
    assert "good" in installer.install(["good"]).modules


SHADOWS = ("json", "os", "sitecustomize", "usercustomize", "traceback", "csv", "numpy", "interpreter")


def test_what_shadows_the_library_is_the_asking_calls_own(index: Index, tmp_path: Path, home: Path) -> None:
    """Modules named like others, paths files, a console script named python: no start of anything reads them."""
    evil = f"open({str(index.loot / 'ran')!r}, 'w').close()\n"
    index.wheel(
        "bad",
        {f"{name}.py": evil + "dumps = str\n" for name in SHADOWS}
        | {"bad.pth": "import sys; " + evil, "bad-1.0.data/scripts/python": "#!python\n" + evil,
           "bad-1.0.dist-info/entry_points.txt": "[console_scripts]\npython = os:dumps\npip = os:dumps\n"},
    )  # fmt: skip
    index.wheel("good", {"good.py": MODULE})
    policy = PackagePolicy(index_url=index.url + "simple/")
    interpreter = Interpreter(Limits(timeout_s=30), packages=policy, preload=(), scratch=home)
    try:
        asking = interpreter.run("6 * 7", ["bad"]).execution
        assert (asking.result, asking.error) == ("42", None), "it reported in order"
        assert list(index.loot.iterdir()) == [], "something of it ran at a start"
        then = interpreter.run("import csv, good, json\njson.dumps([good.value]) + csv.__name__", ["good"]).execution
        assert (then.result, then.error) == ("[42]csv", None)
        assert list(index.loot.iterdir()) == []
    finally:
        interpreter.close()
