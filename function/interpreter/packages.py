"""Which packages are there, and installing more at run time: wheels only, by name only, within a time limit.

pip resolves and unpacks; a wheel runs no code of its own when it is unpacked. What was installed is reused within the
environment only while every file is as it was, because user code runs under the same uid.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

MAX_REQUIREMENTS = 20
MAX_INSTALLED_MB = 200
INSTALL_LIMIT_S = 30.0


class PackageError(Exception):
    """A requirement that was not installed. `name` is the error's class for the caller."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True)
class Overlay:
    """Directories to put before the preinstalled packages, and the top-level modules found there."""

    paths: list[str] = field(default_factory=list)
    modules: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Installed:
    overlay: Overlay
    digests: dict[str, str]  # relative path -> SHA-256


def preinstalled() -> list[tuple[str, str]]:
    """Name and version of every distribution on the path, read from what is installed, sorted by name."""
    found: dict[str, tuple[str, str]] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(canonicalize_name(name), (name, distribution.version))
    return [found[key] for key in sorted(found)]


def parse(requirements: Sequence[str]) -> list[Requirement]:
    """Requirements by name and version (PEP 508), nothing else: an option, a URL or a path is refused.

    Raises PackageError naming the first one that is not.
    """
    if len(requirements) > MAX_REQUIREMENTS:
        message = f"{len(requirements)} requirements were given; at most {MAX_REQUIREMENTS} can be installed in a call"
        raise PackageError("InvalidRequirement", message)
    parsed = []
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            message = f"{text!r} is not a requirement; give a name with an optional version, such as 'requests>=2.31'"
            raise PackageError("InvalidRequirement", message) from None
        if requirement.url:
            message = f"{text!r} names a URL; only packages of the configured index can be installed"
            raise PackageError("InvalidRequirement", message)
        parsed.append(requirement)
    return parsed


def satisfied(requirement: Requirement) -> bool:
    """Whether what is preinstalled answers `requirement`, or its marker does not apply here."""
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    if requirement.extras:
        return False
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


class PackageInstaller:
    """Installs into directories below `directory`, one for each set of requirements."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._installed: dict[str, Installed] = {}

    def install(self, requirements: Sequence[str], *, timeout_s: float = INSTALL_LIMIT_S) -> Overlay:
        """Make `requirements` importable from the returned overlay; costs nothing where they are satisfied already.

        Raises PackageError: InvalidRequirement, PackageNotFound, InstallTimeout, NoNetwork, PackageTooLarge or
        InstallFailed, with a sentence.
        """
        missing = [requirement for requirement in parse(requirements) if not satisfied(requirement)]
        if not missing:
            return Overlay()
        wanted = sorted(str(requirement) for requirement in missing)
        key = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:16]
        known = self._installed.get(key)
        target = self.directory / key
        if known is not None:
            if _digests(target) == known.digests:
                return known.overlay
            del self._installed[key]
        shutil.rmtree(target, ignore_errors=True)
        deadline = time.monotonic() + timeout_s
        self.directory.mkdir(mode=0o700, exist_ok=True)
        try:
            pins = _resolve(wanted, self.directory, deadline, timeout_s)
            if pins:
                _unpack(pins, target, self.directory, deadline, timeout_s)
            target.mkdir(exist_ok=True)
            digests = _digests(target)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        modules = frozenset(path.partition("/")[0].partition(".")[0] for path in digests)
        overlay = Overlay([str(target)], modules)
        self._installed[key] = Installed(overlay, digests)
        return overlay

    def close(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def _resolve(wanted: list[str], home: Path, deadline: float, limit_s: float) -> list[str]:
    """`name==version` of all that must come beside what is preinstalled. pip sees the latter, so it is not doubled."""
    report = home / "report.json"
    arguments = ["install", "--dry-run", "--quiet", "--report", str(report), *wanted]
    try:
        _pip(arguments, home, deadline, limit_s)
        items = json.loads(report.read_text())["install"]
    finally:
        report.unlink(missing_ok=True)
    return [f"{item['metadata']['name']}=={item['metadata']['version']}" for item in items]


def _unpack(pins: list[str], target: Path, home: Path, deadline: float, limit_s: float) -> None:
    _pip(["install", "--quiet", "--no-deps", "--no-compile", "--target", str(target), *pins], home, deadline, limit_s)
    size = sum(path.lstat().st_size for path in target.rglob("*"))
    if size > MAX_INSTALLED_MB << 20:
        message = f"{', '.join(pins)} take {size >> 20} MB unpacked; at most {MAX_INSTALLED_MB} MB can be installed"
        raise PackageError("PackageTooLarge", message)


def _pip(arguments: list[str], home: Path, deadline: float, limit_s: float) -> None:
    pip = pip_directory()
    if pip is None:
        raise PackageError("InstallFailed", "this environment has no pip, so nothing can be installed at run time")
    command = [
        sys.executable,
        "-c",
        # pip is imported from where it was found, with the preinstalled packages visible to it and nothing of ours.
        f"import sys; sys.path[:] = {_paths(pip)!r}; from pip._internal.cli.main import main; sys.exit(main())",
        *arguments[:1],
        "--only-binary=:all:",
        "--no-input",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--no-warn-conflicts",
        "--retries=1",
        *arguments[1:],
    ]
    process = subprocess.Popen(
        command,
        env=_pip_environment(home),
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=max(deadline - time.monotonic(), 0.05))
    except subprocess.TimeoutExpired:
        message = f"installing did not finish within {limit_s:g} seconds"
        raise PackageError("InstallTimeout", message) from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise _explain(output)


def _pip_environment(home: Path) -> dict[str, str]:
    """pip's whole environment. An index's credentials travel here, never in argv."""
    kept = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    if index := os.environ.get("INTERPRETER_INDEX_URL"):
        environment["PIP_INDEX_URL"] = index
    return environment


def pip_directory() -> str | None:
    """Where pip can be imported from: the path, else the libraries of the Python that a virtual environment has."""
    spec = importlib.util.find_spec("pip")
    if spec is not None and spec.origin:
        return str(Path(spec.origin).parents[1])
    base = sysconfig.get_path("purelib", vars={"base": sys.base_prefix, "platbase": sys.base_prefix})
    return base if base and (Path(base) / "pip" / "__init__.py").is_file() else None


def _paths(pip: str) -> list[str]:
    own = str(Path(__file__).resolve().parents[1])
    return [*(entry for entry in sys.path if entry and entry not in (own, os.getcwd())), pip]


def _explain(output: str) -> PackageError:
    """pip's output as one sentence. The texts are those of pip 23 to 26."""
    if re.search(
        r"NewConnectionError|Failed to establish a new connection|Name or service not known|ConnectTimeout", output
    ):
        return PackageError("NoNetwork", "the package index cannot be reached from here, so nothing was installed")
    missing = re.search(r"No matching distribution found for (\S+)", output)
    if missing:
        name = missing[1]
        versions = re.search(r"\(from versions: ([^)]*)\)", output)
        if versions and versions[1].strip() not in ("", "none"):
            message = f"no version of {name} fits; the index has wheels of {versions[1]}"
        else:
            python = ".".join(map(str, sys.version_info[:2]))
            message = f"{name} is not in the index, or has no wheel for Python {python} on this platform"
        return PackageError("PackageNotFound", message)
    conflict = re.search(r"ERROR: (Cannot install .*)", output)
    lines = [line for line in output.splitlines() if line.startswith("ERROR:")] or output.splitlines()[-1:]
    return PackageError("InstallFailed", conflict[1] if conflict else " ".join(lines)[:500] or "pip failed silently")


def _digests(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): _digest(path) for path in _walk(directory)}


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _walk(directory: Path) -> Iterator[Path]:
    """Files and symlinks below `directory`; following none."""
    for root, directories, files in os.walk(directory):
        for name in (*files, *(name for name in directories if (Path(root) / name).is_symlink())):
            yield Path(root) / name
