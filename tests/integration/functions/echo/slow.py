"""Functions whose init takes long, or too much, the first time or every time: /tmp tells which time it is."""

import os
import time

TIMES = "/tmp/times" if os.environ["LAMBDA_TASK_ROOT"] == "/var/task" else os.environ["TMPDIR"] + "/times"


def _count():
    with open(TIMES, "a+") as file:
        file.write("x")
        file.seek(0)
        return len(file.read())


_time = _count()
if os.environ.get("SLOW") == "always" or (os.environ.get("SLOW") == "first" and _time == 1):
    time.sleep(600)
if os.environ.get("HUNGRY") == "first" and _time == 1:
    block = bytearray(500 * 1024 * 1024)
    block[::4096] = b"x" * len(block[::4096])
    time.sleep(600)
if os.environ.get("BROKEN") == "always" or (os.environ.get("BROKEN") == "first" and _time == 1):
    raise RuntimeError("broken on purpose")

from handler import handler as handler  # noqa: E402
