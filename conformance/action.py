"""The suite as a step of a GitHub job: inputs come as INPUT_*, counts go to GITHUB_OUTPUT, the summary to the job.

It must not decide anything: what it returns is the command's own exit code.
"""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from conformance import exits
from conformance.__main__ import run as run_command
from conformance.records import count, read_checks
from conformance.report.results import read_run

# Input -> option, for the inputs that are passed on as they are when they are not empty.
OPTIONS = {
    "ONLY": "--only",
    "PROFILE": "--profile",
    "TARGET": "--target",
    "BASELINE": "--baseline",
    "WORKERS": "-n",
    "TIMEOUT": "--timeout",
}
TRUE = ("true", "yes", "1")
FALSE = ("false", "no", "0", "")
# GitHub refuses a step summary past 1 MiB.
MOST_SUMMARY_BYTES = 1_000_000


def arguments(environment: Mapping[str, str], out: Path) -> list[str]:
    """The command line for these inputs.

    Raises:
        ValueError: an input is unusable; one sentence for a person.
    """
    endpoint, strict = (environment.get(f"INPUT_{name}", "").strip() for name in ("ENDPOINT", "STRICT"))
    if not endpoint and not environment.get("INPUT_TARGET", "").strip():
        raise ValueError("The input `endpoint` is empty; give the URL of the MCP endpoint.")
    if strict.lower() not in (*TRUE, *FALSE):
        raise ValueError(f"The input `strict` is {strict!r}; give true or false.")
    found = [endpoint] if endpoint else []
    for name, option in OPTIONS.items():
        value = environment.get(f"INPUT_{name}", "").strip()
        found += [option, value] if value else []
    for name, option in (("HEADERS", "--header"), ("REFUSED_HEADERS", "--refused-header")):
        for line in environment.get(f"INPUT_{name}", "").splitlines():
            found += [option, line.strip()] if line.strip() else []
    return [*found, *(["--strict"] if strict.lower() in TRUE else []), "--out", str(out)]


def outputs(out: Path, code: int) -> dict[str, str]:
    """The step's outputs, from the run's files; without a run only the exit code."""
    if not (out / "run.json").is_file():
        return {"exit-code": str(code), "verdict": "not judged"}
    counts = count(read_checks(out / "checks.jsonl"))
    return {
        "exit-code": str(code),
        "verdict": read_run(out).verdict,
        "passed": str(counts["passed"]),
        "failed": str(counts["failed"] + counts["error"]),
        "warnings": str(counts["warning"]),
        "skipped": str(counts["skipped"]),
        "results": str(out),
    }


def run(environment: Mapping[str, str]) -> int:
    """Runs the step and returns its exit code."""
    out = Path(environment.get("INPUT_RESULTS", "").strip() or "conformance-results").absolute()
    if environment.get("INPUT_API_KEY"):
        os.environ["MCP_API_KEY"] = environment["INPUT_API_KEY"]
    try:
        argv = arguments(environment, out)
    except ValueError as fault:
        print(f"::error title=MCP conformance::{fault}")
        return exits.USAGE
    print(f"python -m conformance {shlex.join(argv)}", flush=True)
    code = run_command(argv)
    _append(environment.get("GITHUB_OUTPUT"), "".join(f"{key}={value}\n" for key, value in outputs(out, code).items()))
    if (out / "summary.md").is_file():
        _append(environment.get("GITHUB_STEP_SUMMARY"), (out / "summary.md").read_text(encoding="utf-8"))
    elif code:
        print(f"::error title=MCP conformance::The endpoint was not judged (exit code {code}); see the line above.")
    return code


def _append(path: str | None, text: str) -> None:
    """Adds to a file the runner names; elsewhere there is none, and nothing to do."""
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text.encode()[:MOST_SUMMARY_BYTES].decode(errors="ignore"))


def main() -> None:
    """Entry point."""
    sys.exit(run(os.environ))


if __name__ == "__main__":
    main()
