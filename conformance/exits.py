"""The exit codes of `python -m conformance`; one table, used by the command line and by the pytest plugin."""

PASS = 0
GATE_FAILED = 1
USAGE = 2
UNREACHABLE = 3
INCONCLUSIVE = 4
STALE_BASELINE = 5
INTERRUPTED = 130
