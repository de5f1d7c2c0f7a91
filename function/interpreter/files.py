"""Files given to a run and files it leaves, by name below the run's directory. Never follows a symlink.

What a run left was made by hostile code: every step is by directory descriptor with O_NOFOLLOW, and only regular files
count.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interpreter.confinement import OPEN_DIRECTORY

MAX_FILES_IN = 20
MAX_BYTES_IN = 3 << 20  # of all files given; a request body is capped at 4 MiB
MAX_LISTED = 100
MAX_BYTES_OUT = 2 << 20  # of all files returned; Lambda answers at most 6 MB
MAX_DEPTH = 8
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe in its place does not hold us up


class FileError(ValueError):
    """A file that cannot be taken or returned; the message is a sentence for the caller."""


@dataclass(frozen=True, slots=True)
class Left:
    """A file that a run left: name relative to its directory, size in bytes."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Returned:
    name: str
    data: bytes


def decode(files: Mapping[str, Any]) -> dict[str, bytes]:
    """The bytes of each file, given as a text or as `{"base64": text}`.

    Raises FileError for a name or a content that will not do.
    """
    if len(files) > MAX_FILES_IN:
        raise FileError(f"{len(files)} files were given; at most {MAX_FILES_IN} can be")
    decoded = {}
    for name, content in files.items():
        check_name(name)
        if isinstance(content, str):
            decoded[name] = content.encode("utf-8", "surrogatepass")
            continue
        try:
            decoded[name] = base64.b64decode(content["base64"], validate=True)
        except (binascii.Error, ValueError):
            raise FileError(f"file {name!r}: its base64 cannot be decoded") from None
    total = sum(map(len, decoded.values()))
    if total > MAX_BYTES_IN:
        raise FileError(f"the files have {total} bytes together; at most {MAX_BYTES_IN} can be given")
    return decoded


def check_name(name: str) -> None:
    """Raise FileError unless `name` is a relative path of plain parts."""
    parts = name.split("/")
    if len(parts) > MAX_DEPTH or len(name) > 255 or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise FileError(f"file name {name[:80]!r} must be a relative path without '..', at most {MAX_DEPTH} parts deep")


def write(directory: str, files: Mapping[str, bytes]) -> None:
    """Lay `files` into a run's directory, before its code runs.

    Raises FileError where one name is a directory of another.
    """
    for name, data in files.items():
        path = os.path.join(directory, name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as file:
                file.write(data)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise FileError(f"file {name!r} cannot lie beside the others: one name is a directory of another") from None


def left(directory: str, given: Mapping[str, bytes]) -> tuple[list[Left], bool]:
    """What lies there and was not given just so, sorted by name, and whether there is more than can be listed."""
    found = []
    fd = os.open(directory, OPEN_DIRECTORY)
    try:
        for name, size, file_fd in _walk(fd, "", 0):
            try:
                if name in given and size == len(given[name]) and _read(file_fd, size) == given[name]:
                    continue
            finally:
                os.close(file_fd)
            found.append(Left(name, size))
            if len(found) > MAX_LISTED:
                break
    finally:
        os.close(fd)
    found.sort(key=lambda one: one.name)
    return found[:MAX_LISTED], len(found) > MAX_LISTED


def collect(directory: str, names: Sequence[str]) -> tuple[list[Returned], list[str]]:
    """Contents of the files asked for, within MAX_BYTES_OUT, and a sentence for each that cannot be returned."""
    returned: list[Returned] = []
    problems = []
    room = MAX_BYTES_OUT
    for name in names:
        try:
            check_name(name)
            data = _open_and_read(directory, name, room)
        except FileError as error:
            problems.append(str(error))
        except OSError:
            problems.append(f"file {name!r} is not there, or is not a regular file")
        else:
            room -= len(data)
            returned.append(Returned(name, data))
    return returned, problems


def _open_and_read(directory: str, name: str, room: int) -> bytes:
    *above, last = name.split("/")
    fd = os.open(directory, OPEN_DIRECTORY)
    try:
        for part in above:
            below = os.open(part, OPEN_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        file_fd = os.open(last, _OPEN_FILE, dir_fd=fd)
    finally:
        os.close(fd)
    try:
        status = os.fstat(file_fd)
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"file {name!r} is not there, or is not a regular file")
        if status.st_size > room:
            raise FileError(f"file {name!r} has {status.st_size} bytes; {room} of {MAX_BYTES_OUT} are left to return")
        return _read(file_fd, status.st_size)
    finally:
        os.close(file_fd)


def _read(fd: int, size: int) -> bytes:
    chunks = []
    while size > 0 and (chunk := os.read(fd, size)):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _walk(fd: int, prefix: str, depth: int) -> Iterator[tuple[str, int, int]]:
    """Name, size and an open descriptor (the caller's to close) of every regular file below `fd`."""
    with os.scandir(fd) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        try:
            status = os.lstat(name, dir_fd=fd)
            if stat.S_ISREG(status.st_mode):
                file_fd = os.open(name, _OPEN_FILE, dir_fd=fd)
                yield prefix + name, status.st_size, file_fd
            elif stat.S_ISDIR(status.st_mode) and depth < MAX_DEPTH and name != "__pycache__":
                below = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
                try:
                    yield from _walk(below, f"{prefix}{name}/", depth + 1)
                finally:
                    os.close(below)
        except OSError:
            continue  # unreadable by the run's own doing
