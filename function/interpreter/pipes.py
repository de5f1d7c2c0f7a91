"""What the host and a child agree on: the numbers of the child's descriptors, and what is written on them.

Constants only. Each side imports these, and neither the other's code: what judges user code has no place in the host.
"""

from __future__ import annotations

STREAMS = ("stdout", "stderr", "report", "trace")  # descriptors 1 to 4 of the child; 0 is empty
REPORT, TRACE, CHANNEL = 3, 4, 5  # its result; what it was refused, and where it is stuck; its requests
FILENAME = "<code>"  # of the submitted code, in tracebacks
REFUSED = b"refused: "  # begins a line on the trace pipe that names a refused operation, whatever was there before
MAX_NAME = 1000  # characters of that name
UNTOLD = 71  # exit status of a child that could not tell a refusal
