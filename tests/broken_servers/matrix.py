"""`python -m tests.broken_servers.matrix [NAME ...]`: each mutant, the check that must notice it, and whether it did.

Exit code 1 when a mutant survives. What `make test` asserts, as a table for a person.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conformance.__main__ import run as run_suite
from tests.broken_servers import mutants

REFERENCE = Path(__file__).with_name("reference.py")
TABLES = {
    "protocol": (mutants.PROTOCOL, mutants.RICH, mutants.KEYS, mutants.TOKENS),
    "tools": (mutants.TOOLS,),
}
SCHEMA_CHECK = "results_fit_their_schema"


@contextmanager
def reference() -> Iterator[str]:
    """The base URL of the reference server, in a process of its own; mutants are chosen by path."""
    command = [sys.executable, str(REFERENCE), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def noticed(base: str, fault: str, part: str, check: str) -> str:
    """Tells "killed" when the check failed on the mutant, "SURVIVED" when it did not."""
    keyword = "absent_origin or original_keys" if check == SCHEMA_CHECK else check
    options = ["--only", part, "-k", keyword, "--strict", "--timeout", "6", "--json"]
    if fault in mutants.TOKENS:
        options += [
            "--header",
            "Authorization=env:MATRIX_TOKEN",
            "--refused-header",
            "Authorization=env:MATRIX_EXPIRED",
        ]
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        run_suite([f"{base}/{fault}/mcp/", *options, "--out", out])
        report = json.loads((Path(out) / "report.json").read_text())
    found = {one["status"] for one in report["checks"] if check in one["id"]}
    return "killed" if found & {"failed", "warning"} else "SURVIVED"


def run(argv: Sequence[str]) -> int:
    """Prints the table; returns the exit code."""
    os.environ |= {"MATRIX_TOKEN": "Bearer the-right-token", "MATRIX_EXPIRED": "Bearer the-expired-token"}
    rows = [
        (part, fault, check)
        for part, tables in TABLES.items()
        for table in tables
        for fault, check in table.items()
        if not argv or fault in argv or check in argv
    ]
    if not rows:
        print(f"There is no mutant or check {' '.join(argv)!r}.", file=sys.stderr)
        return 2
    table, survived = Table("mutant", "check that must notice it", "", box=None), 0
    with reference() as base:
        for number, (part, fault, check) in enumerate(rows, 1):
            print(f"\r{number} of {len(rows)} ", end="", file=sys.stderr, flush=True)
            if fault in mutants.KEYS:
                os.environ["MCP_API_KEY"] = "the-right-key"
            verdict = noticed(base, fault, part, check)
            os.environ.pop("MCP_API_KEY", None)
            survived += verdict != "killed"
            table.add_row(fault, check, verdict)
    print(file=sys.stderr)
    Console(width=140).print(table)
    print(f"{len(rows)} mutants, {survived} survived; checks without one, and why:")
    for check, why in mutants.WITHOUT_MUTANT.items():
        print(f"  {check}: {why}")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
