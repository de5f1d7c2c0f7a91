"""`python -m sam.dependencies.layer`: builds the Lambda layer without docker; it asks AWS nothing.

Wheels for the target are installed from hashed pins, trimmed of what no program loads, stripped, and compiled: a layer
is read-only, so what is not compiled here is compiled again on every cold start (measured: 10 s against 3 s, and
Lambda's init limit is 10 s). README.md beside this file says what a user loses.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PINS = HERE / "requirements.txt"
OUT = ROOT / ".aws-sam" / "layer"
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html says 250 MB for function and layers together,
# unzipped; GetAccountSettings (CodeSizeUnzipped) and the refusal, "must be smaller than 262144000 bytes", say which MB.
LIMIT_BYTES = 262_144_000
PYTHONS = ("3.12", "3.13", "3.14")
PLATFORMS = {"x86_64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}  # AL2023 has glibc 2.34
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
CROSS = {"x86_64": "x86_64", "arm64": "aarch64"}
PACKAGE = {"x86_64": "binutils-x86-64-linux-gnu", "arm64": "binutils-aarch64-linux-gnu"}
LISTED = 12  # of the largest libraries, in the size table
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

TEST_DIRECTORIES = {"tests", "test"}
# What a compiler or a type checker reads, never the interpreter.
SOURCE_SUFFIXES = {".pyi", ".pxd", ".pyx", ".c", ".h", ".hpp", ".cpp", ".a", ".f", ".f90", ".tp", ".build", ".in"}
TRIMMED_GLOBS = (
    "bin",  # console scripts; the layer's path is not on PATH
    "share",  # manual pages
    "*.dist-info/RECORD",  # names the files that were trimmed
    "*.dist-info/licenses/**/*.spdx*",
    "PIL/_avif*.so",  # the AVIF plugin
    "pillow.libs/libavif-*",
    "matplotlib/backends/web_backend",  # needs a browser
    "matplotlib/mpl-data/sample_data",
    "sklearn/datasets/images",
    "scipy/datasets/*.dat",
    # Each has the same module in Python beside it, which is what matplotlib's font subsetting then runs.
    "fontTools/**/*.so",
    # Tools for making fonts; matplotlib reads and subsets them.
    *(f"fontTools/{name}" for name in ("cu2qu", "diff", "merge", "mtiLib", "qu2cu", "ufoLib", "voltLib")),
    # Windows: Lambda has no display, and its Python no tkinter.
    "matplotlib/mpl-data/images",
    "matplotlib/backends/_tkagg*.so",
    "PIL/_imagingtk*.so",
    # Extension modules that only the tests load.
    "numpy/_core/_*_tests*.so",
    "numpy/_core/_simd*.so",
    "scipy/_lib/_test_*.so",
    "scipy/integrate/_test_*.so",
    "scipy/ndimage/_c*test*.so",
    "scipy/special/_test_internal*.so",
)
EXAMPLES = """examples:
  python -m sam.dependencies.layer                               x86_64, Python 3.12, into .aws-sam/layer
  python -m sam.dependencies.layer --arch arm64 --out /tmp/arm64
  python -m sam.dependencies.layer --python 3.13
"""


class BuildError(Exception):
    """The layer cannot be built; the message is one sentence for a person, `code` the exit code."""

    def __init__(self, message: str, code: int = EXIT_USAGE) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Plan:
    """What to build: `arch` as Lambda spells it, `python` as "3.12", `out` the directory that holds python/."""

    arch: str
    python: str
    out: Path
    docstrings: bool = False

    @property
    def runs_here(self) -> bool:
        return MACHINES.get(platform.machine().lower()) == self.arch


@dataclass(frozen=True, slots=True)
class Facts:
    """What was built, kept beside the layer as layer.json; `key` is the same exactly when the inputs are."""

    key: str
    arch: str
    python: str
    layer_bytes: int
    function_bytes: int


def run(argv: Sequence[str]) -> int:
    """Build, check, and print the size table. Returns 0, 1 when the layer is too large or fails its smoke, 2, 130."""
    options = _parse(argv)
    plan = Plan(options.arch, options.python, options.out, options.docstrings)
    try:
        facts = built(plan) if not options.force else None
        if facts is None:
            facts = build(plan)
        else:
            say(f"{plan.out} is current ({plan.arch}, Python {plan.python}); --force builds it anew")
        print(size_table(plan.out / "python", facts))
        _refuse_oversize(facts)
    except BuildError as error:
        print(f"layer: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("layer: interrupted; the next build starts anew", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_OK


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sam.dependencies.layer",
        description="Build the Lambda layer without docker, and fail when it does not fit.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arch", choices=sorted(PLATFORMS), default="x86_64")
    parser.add_argument("--python", choices=PYTHONS, default="3.12", help="of the function's runtime (default 3.12)")
    parser.add_argument("--out", type=Path, default=OUT, help="where python/ goes (default .aws-sam/layer)")
    parser.add_argument("--docstrings", action="store_true", help="keep what help() shows; 19 MiB, x86_64 only fits")
    parser.add_argument("--force", action="store_true", help="build even when the layer there is current")
    return parser.parse_args(argv)


def say(text: str) -> None:
    print(f"layer: {text}", file=sys.stderr, flush=True)


# -- building ---------------------------------------------------------------------------------------------------------


def build(plan: Plan) -> Facts:
    """Build the layer of `plan` from nothing. Raises BuildError."""
    python = find_python(plan.python)
    strip = find_strip(plan.arch)
    target = plan.out / "python"
    shutil.rmtree(plan.out, ignore_errors=True)
    target.mkdir(parents=True)
    say(f"installing wheels for {plan.arch}, Python {plan.python}")
    install(plan, target)
    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("trimming tests, sources and plugins", lambda: trim(target)),
        ("stripping symbols", lambda: strip_symbols(target, strip)),
        ("listing fonts", lambda: list_fonts(plan, python, target)),
        ("compiling", lambda: compile_bytecode(python, target, plan.docstrings)),
    )
    for name, step in steps:
        before = size_of(target)
        step()
        say(f"{name}: {before / 2**20:.1f} -> {size_of(target) / 2**20:.1f} MiB")
    check_loadable(target)
    if plan.runs_here:
        say("importing and using every library")
        smoke(python, target)
    else:
        say(f"not tried: this machine cannot run {plan.arch}; the libraries were checked as files only")
    facts = Facts(_key(plan), plan.arch, plan.python, size_of(target), function_size(ROOT / "function"))
    (plan.out.parent / f"{plan.out.name}.json").write_text(json.dumps(asdict(facts), indent=2) + "\n")
    return facts


def built(plan: Plan) -> Facts | None:
    """The facts of the layer in `plan.out` when the inputs have not changed since, else None."""
    try:
        facts = Facts(**json.loads((plan.out.parent / f"{plan.out.name}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    current = facts.key == _key(plan) and (plan.out / "python").is_dir()
    return facts if current else None


def _key(plan: Plan) -> str:
    digest = hashlib.sha256(f"{plan.arch} {plan.python} {plan.docstrings}".encode())
    for name in ("requirements.txt", "layer.py", "fontcache.py", "smoke.py"):
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()


def install(plan: Plan, target: Path) -> None:
    """Wheels of the pins into `target`, for the target's platform whatever this one is. Copied, never hard links:
    stripping a link would strip the cache."""
    uv = ROOT / ".tools" / "uv" / "bin" / "uv"
    if not uv.exists():
        raise BuildError(".tools/uv is missing; run make setup first")
    command = [
        str(uv), "pip", "install", "--quiet", "--link-mode", "copy", "--no-deps", "--require-hashes",
        "--only-binary", ":all:", "--python-platform", PLATFORMS[plan.arch], "--python-version", plan.python,
        "--target", str(target), "-r", str(PINS),
    ]  # fmt: skip
    _call(command, "the wheels could not be installed")


def trim(target: Path) -> None:
    """Remove what no program loads."""
    for pattern in TRIMMED_GLOBS:
        for path in list(target.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for directory in [path for path in target.rglob("*") if path.is_dir() and path.name in TEST_DIRECTORIES]:
        shutil.rmtree(directory, ignore_errors=True)
    for path in list(target.rglob("*")):
        if path.is_file() and path.suffix in SOURCE_SUFFIXES and ".dist-info" not in str(path):
            path.unlink()


def strip_symbols(target: Path, strip: str) -> None:
    """Remove symbols from extension modules where the result still loads. Never inside *.libs: auditwheel laid those
    out by hand, and stripping breaks their page alignment. llvm-strip breaks some others too (34 of scipy's), so each
    result is looked at before it is taken."""
    for path in shared_objects(target):
        if path.parent.name.endswith(".libs"):
            continue
        stripped = path.with_name(path.name + ".stripped")
        _call([strip, "--strip-unneeded", "-o", str(stripped), str(path)], f"{path.name} could not be stripped")
        if loadable(stripped.read_bytes()) and stripped.stat().st_size < path.stat().st_size:
            stripped.replace(path)
        else:
            stripped.unlink()


def list_fonts(plan: Plan, python: str, target: Path) -> None:
    """matplotlib's font list, so that no cold start builds one. The list holds relative paths only, so a layer for
    another processor takes the one that this machine's matplotlib of the same version makes."""
    if plan.runs_here:
        _call([python, "-s", "-B", str(HERE / "fontcache.py")], "no font list", PYTHONPATH=str(target))
        return
    from importlib.metadata import distribution, version

    ours = Path(str(distribution("matplotlib").locate_file("matplotlib/mpl-data")))
    theirs = next(target.glob("matplotlib-*.dist-info")).name.removeprefix("matplotlib-").removesuffix(".dist-info")
    lists = list(ours.glob("fontlist-*.json"))
    if version("matplotlib") != theirs or not lists:
        raise BuildError(f"the font list wants matplotlib {theirs} in .venv; run make setup")
    for path in lists:
        shutil.copy(path, target / "matplotlib" / "mpl-data")


def compile_bytecode(python: str, target: Path, docstrings: bool = False) -> None:
    """One .pyc in the place of each .py. Unchecked hashes, since timestamps do not survive packaging; -OO leaves out
    asserts and docstrings, with which arm64 does not fit; paths in tracebacks are those in Lambda."""
    command = [
        python, "-O" if docstrings else "-OO", "-m", "compileall", "-q", "-b", "-j", "0",
        "--invalidation-mode", "unchecked-hash",
        "-s", str(target), "-p", "/opt/python", str(target),
    ]  # fmt: skip
    _call(command, "a module does not compile")
    for path in list(target.rglob("*.py")):
        if not path.with_suffix(".pyc").exists():
            raise BuildError(f"{path.relative_to(target)} was not compiled", EXIT_FAILED)
        path.unlink()
    for directory in list(target.rglob("__pycache__")):
        shutil.rmtree(directory)


def smoke(python: str, target: Path) -> None:
    """Import and use every library with nothing on the path but the layer. Raises BuildError."""
    _call(
        [python, "-S", "-s", "-P", str(HERE / "smoke.py"), str(target)],
        "the layer fails its smoke",
        PYTHONPATH=str(target),
    )


# -- checking ---------------------------------------------------------------------------------------------------------


def shared_objects(target: Path) -> list[Path]:
    return sorted(path for path in target.rglob("*") if path.is_file() and re.search(r"\.so(\.|$)", path.name))


def check_loadable(target: Path) -> None:
    """Raise BuildError for a shared object that the loader would refuse, on any processor."""
    broken = [path for path in shared_objects(target) if not loadable(path.read_bytes())]
    if broken:
        names = ", ".join(str(path.relative_to(target)) for path in broken[:5])
        raise BuildError(f"{len(broken)} libraries would not load after stripping: {names}", EXIT_FAILED)


def loadable(elf: bytes) -> bool:
    """Whether a 64-bit little-endian ELF's load segments lie within the file and agree with its pages (elf(5): p_vaddr
    and p_offset are congruent modulo p_align)."""
    if elf[:6] != b"\x7fELF\x02\x01":
        return False
    (table,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    for number in range(count):
        kind, _, offset, address, _, in_file, _, align = struct.unpack_from("<IIQQQQQQ", elf, table + number * size)
        if kind == 1 and (offset + in_file > len(elf) or (align > 1 and (address - offset) % align)):
            return False
    return True


def _refuse_oversize(facts: Facts) -> None:
    total = facts.layer_bytes + facts.function_bytes
    if total >= LIMIT_BYTES:
        raise BuildError(
            f"layer and function take {total / 2**20:.1f} MiB unzipped, {(total - LIMIT_BYTES) / 2**20:.1f} MiB over "
            f"Lambda's {LIMIT_BYTES / 2**20:.0f}; "
            "take a library out of sam/dependencies/requirements.in, or for arm64 on x86_64 strip with GNU binutils "
            f"({PACKAGE['arm64']}), which leaves less than llvm-strip",
            EXIT_FAILED,
        )


# -- sizes ------------------------------------------------------------------------------------------------------------


def size_of(directory: Path) -> int:
    """Bytes of the files below `directory`, as Lambda counts them: contents, not blocks."""
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())


def function_size(function: Path) -> int:
    """Bytes of the function's own sources, twice: its bytecode is deployed beside them."""
    return 2 * sum(path.stat().st_size for path in function.rglob("*.py"))


def size_table(target: Path, facts: Facts) -> str:
    """The largest top-level entries, the rest, the function, and what is left of the limit, in MiB."""
    entries = {path.name: size_of(path) if path.is_dir() else path.stat().st_size for path in target.iterdir()}
    by_size = sorted(entries.items(), key=lambda item: (-item[1], item[0]))
    rows = by_size[:LISTED]
    if rest := by_size[LISTED:]:
        rows.append((f"{len(rest)} more", sum(size for _, size in rest)))
    rows += [("the layer", facts.layer_bytes), ("the function", facts.function_bytes)]
    rows += [("left of Lambda's 250", LIMIT_BYTES - facts.layer_bytes - facts.function_bytes)]
    head = f"{'MiB':>8}  {facts.arch}, Python {facts.python}"
    return "\n".join([head, *(f"{size / 2**20:>8.1f}  {name}" for name, size in rows)])


# -- tools ------------------------------------------------------------------------------------------------------------


def find_python(version: str) -> str:
    """A Python of exactly this minor version; its bytecode is the layer's. Raises BuildError."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        return sys.executable
    home = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    candidates = [f"python{version}", *map(str, sorted(Path(home).glob(f"versions/{version}.*/bin/python{version}")))]
    candidates += map(str, sorted(Path.home().glob(f".local/share/uv/python/cpython-{version}*/bin/python{version}")))
    for candidate in candidates:
        test = f"import sys; sys.exit(sys.version_info[:2] != ({version.replace('.', ', ')}))"
        try:
            if subprocess.run([candidate, "-c", test], capture_output=True, check=False).returncode == 0:
                return candidate
        except OSError:
            continue
    raise BuildError(
        f"bytecode for Python {version} needs a python{version}; .tools/uv/bin/uv python install {version}"
    )


def find_strip(arch: str) -> str:
    """GNU strip for `arch`, else llvm-strip, which knows every processor but does less. Raises BuildError."""
    gnu = "strip" if MACHINES.get(platform.machine().lower()) == arch else f"{CROSS[arch]}-linux-gnu-strip"
    found = shutil.which(gnu) or shutil.which("llvm-strip")
    if found is None:
        raise BuildError(f"neither {gnu} nor llvm-strip is here; apt-get install {PACKAGE[arch]}")
    return found


def _call(command: Iterable[str], failed: str, **environment: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(list(command), env={**inherited, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise BuildError(f"{failed}: {said}", EXIT_FAILED)


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
