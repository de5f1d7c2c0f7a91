"""Reads and writes one setting of the file that deployments are made from, and leaves every other line as it is."""

import re
from pathlib import Path

from ops.failures import UsageError


def read_setting(path: Path, name: str) -> str | None:
    """The last value that the file gives `name`, without quotes; None where it gives none or is not there."""
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    values = re.findall(rf"^\s*(?:export\s+)?{re.escape(name)}=(.*)$", text, re.MULTILINE)
    return values[-1].strip().strip("'\"") or None if values else None


def write_setting(path: Path, name: str, value: str) -> str:
    """Sets `name` in a file of shell assignments and returns the line as it stands now.

    Keeps a leading `export`, replaces the last assignment there is, else adds one at the end. Raises UsageError if the
    file does not exist.
    """
    if not path.is_file():
        raise UsageError(f"There is no {path} to write {name} to; copy {path}.example or give --settings.")
    text = path.read_text(encoding="utf-8")
    assignments = list(re.finditer(rf"^(\s*(?:export\s+)?){re.escape(name)}=.*$", text, re.MULTILINE))
    if assignments:
        last = assignments[-1]
        line = f"{last[1]}{name}={value}"
        text = text[: last.start()] + line + text[last.end() :]
    else:
        line = f"export {name}={value}" if re.search(r"^\s*export\s", text, re.MULTILINE) else f"{name}={value}"
        text = text + ("" if not text or text.endswith("\n") else "\n") + line + "\n"
    path.write_text(text, encoding="utf-8")
    return line
