"""Which packages are there, and installing more at run time: wheels only, by name only, within a time limit.

pip resolves and unpacks; a wheel runs no code of its own when it is unpacked. What was installed is reused within the
environment only while every file is as it was, because user code runs under the same uid.
"""

from __future__ import annotations

import functools
import hashlib
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
from typing import TYPE_CHECKING

from interpreter.template import ROOT, template_path

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# importlib.metadata and packaging are imported where they are used: every cold start would pay 40 ms for them.

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
class PackagePolicy:
    """What a deployment lets calls install, by normalized name; an empty `allow` allows every name.

    `allow` judges what is asked for, `deny` also what would come with it.
    """

    index_url: str | None = None
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Installed:
    overlay: Overlay
    digests: dict[str, str]  # relative path -> SHA-256


def normal_name(name: str) -> str:
    """A distribution's name as it is compared (PEP 503, Normalized Names)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def preinstalled() -> list[tuple[str, str]]:
    """Name and version of every distribution on the path, read once from what is installed, sorted by name."""
    import importlib.metadata

    found: dict[str, tuple[str, str]] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(normal_name(name), (name, distribution.version))
    return [found[key] for key in sorted(found)]


def parse(requirements: Sequence[str]) -> list[Requirement]:
    """Requirements by name and version (PEP 508), nothing else: an option, a URL or a path is refused.

    Raises PackageError naming the first one that is not.
    """
    from packaging.requirements import InvalidRequirement, Requirement

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
    import importlib.metadata

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

    def __init__(self, directory: Path, policy: PackagePolicy | None = None) -> None:
        self.directory = directory
        self.policy = policy or PackagePolicy()
        self._installed: dict[str, Installed] = {}

    def install(self, requirements: Sequence[str], *, timeout_s: float = INSTALL_LIMIT_S) -> Overlay:
        """Make `requirements` importable from the returned overlay; costs nothing where they are satisfied already.

        Raises PackageError: InvalidRequirement, PackageDenied, PackageNotFound, InstallTimeout, NoNetwork,
        PackageTooLarge or InstallFailed, with a sentence.
        """
        missing = [requirement for requirement in parse(requirements) if not satisfied(requirement)]
        if not missing:
            return Overlay()
        for requirement in missing:
            self._check_allowed(requirement.name, asked_for=True)
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
            pip = Pip(self.directory, self.policy.index_url, deadline, timeout_s)
            pins = pip.resolve(wanted)
            for name, _version in pins:
                self._check_allowed(name, asked_for=False)
            if pins:
                pip.unpack(pins, target)
            target.mkdir(exist_ok=True)
            digests = _digests(target)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        modules = frozenset(path.partition("/")[0].partition(".")[0] for path in digests)
        overlay = Overlay([str(target)], modules)
        self._installed[key] = Installed(overlay, digests)
        return overlay

    def _check_allowed(self, name: str, *, asked_for: bool) -> None:
        normal = normal_name(name)
        if normal in self.policy.deny or (asked_for and self.policy.allow and normal not in self.policy.allow):
            raise PackageError("PackageDenied", f"this deployment does not allow {name} to be installed")

    def close(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Pip:
    """pip as a process of its own, confined like the code but for the network; `limit_s` is over all of its calls."""

    home: Path
    index_url: str | None
    deadline: float
    limit_s: float

    def resolve(self, wanted: list[str]) -> list[tuple[str, str]]:
        """Name and version of all that must come beside what is preinstalled, which pip sees, so nothing is doubled.

        Where several were asked for and that fails, each is tried alone, so that one does not hide the others.
        """
        try:
            return self._report(wanted)
        except PackageError as error:
            if len(wanted) == 1 or error.name not in ("PackageNotFound", "InstallFailed"):
                raise
            first = error
        problems = []
        for one in wanted:
            try:
                self._report([one])
            except PackageError as error:
                problems.append(str(error))
        raise PackageError(first.name, "; ".join(problems) or str(first))

    def _report(self, wanted: list[str]) -> list[tuple[str, str]]:
        report = self.home / "report.json"
        try:
            self._run("--dry-run", "--report", str(report), *wanted)
            items = json.loads(report.read_text())["install"]
        finally:
            report.unlink(missing_ok=True)
        return [(item["metadata"]["name"], item["metadata"]["version"]) for item in items]

    def unpack(self, pins: list[tuple[str, str]], target: Path) -> None:
        named = [f"{name}=={version}" for name, version in pins]
        self._run("--no-deps", "--no-compile", "--target", str(target), *named)
        size = sum(path.lstat().st_size for path in target.rglob("*"))
        if size > MAX_INSTALLED_MB << 20:
            message = (
                f"{', '.join(named)} take {size >> 20} MB unpacked; at most {MAX_INSTALLED_MB} MB can be installed"
            )
            raise PackageError("PackageTooLarge", message)

    def _run(self, *arguments: str) -> None:
        where = pip_directory()
        if where is None:
            raise PackageError("InstallFailed", "this environment has no pip, so nothing can be installed at run time")
        path = [*template_path(), where]
        config = {"path": path, "home": str(self.home), "readable": [*path, *_PIP_READS]}
        process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                str(ROOT / "interpreter" / "pip_confined.py"),
                json.dumps(config),
                *_PIP,
                *arguments,
            ],
            env=self._environment(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=max(self.deadline - time.monotonic(), 0.05))
        except subprocess.TimeoutExpired:
            message = f"installing did not finish within {self.limit_s:g} seconds"
            raise PackageError("InstallTimeout", message) from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            raise _explain(output)

    def _environment(self) -> dict[str, str]:
        """pip's whole environment. An index's credentials travel here, never in argv."""
        kept = ("PATH", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {"HOME": str(self.home), "TMPDIR": str(self.home), "LANG": "C.UTF-8"}
        # User code may have laid settings into that home; pip reads no file where this names the null device.
        environment |= {"PIP_CONFIG_FILE": os.devnull, "NETRC": os.devnull}
        if self.index_url:
            environment["PIP_INDEX_URL"] = self.index_url
        return environment


_PIP = (
    "install",
    "--quiet",
    "--only-binary=:all:",
    "--no-input",
    "--no-cache-dir",
    "--disable-pip-version-check",
    "--no-warn-conflicts",
    "--retries=1",
)
# What resolving names and checking certificates reads, besides Python.
_PIP_READS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc", "/usr/share", "/dev/urandom", "/proc/self/status")


def pip_directory() -> str | None:
    """Where pip can be imported from: the path, else the libraries of the Python that a virtual environment has."""
    spec = importlib.util.find_spec("pip")
    if spec is not None and spec.origin:
        return str(Path(spec.origin).parents[1])
    base = sysconfig.get_path("purelib", vars={"base": sys.base_prefix, "platbase": sys.base_prefix})
    return base if base and (Path(base) / "pip" / "__init__.py").is_file() else None


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
