"""The directory of one stack under the system's temporary one, which the next stack removes if this one cannot.

It holds what environments are made in and code that came through the API. Whoever holds the lock on its `owner` file is
alive: the kernel lets go of it however a process ends, and no pid can be mistaken for another's.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "sam-local-"
_OWNER = "owner"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A new directory, gone afterwards; those whose stack was killed go first."""
    remove_abandoned(Path(tempfile.gettempdir()))
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    directory.chmod(0o711)  # environments may run as another user, who needs to pass but not to look
    owner = os.open(directory / f"{_OWNER}.new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX)
        os.rename(directory / f"{_OWNER}.new", directory / _OWNER)  # locked before anyone can see it
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(owner)


def remove_abandoned(parent: Path) -> list[Path]:
    """Remove the directories below `parent` whose owner is gone, and return them; others are left alone."""
    removed = []
    for directory in parent.glob(f"{PREFIX}*"):
        try:
            owner = os.open(directory / _OWNER, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # not ours, another user's, or about to be made
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            shutil.rmtree(directory, ignore_errors=True)
            removed.append(directory)
        finally:
            os.close(owner)
    return removed
