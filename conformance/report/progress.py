"""Tells a waiting person on stderr how far a run is; it must write nothing to stdout and keep nothing."""

import sys
import time

import pytest

PAUSE_S = 2.0


class Progress:
    """A pytest plugin object that replaces pytest's own terminal output in `python -m conformance`."""

    def __init__(self) -> None:
        self.stream = sys.stderr
        self.done = self.failed = 0
        self.told = time.monotonic()
        self.live = self.stream.isatty()

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        own = config.pluginmanager.getplugin("terminalreporter")
        if own is not None:
            config.pluginmanager.unregister(own)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            self.done += 1
            self.failed += report.outcome == "failed"
            now = time.monotonic()
            if self.live:
                self.stream.write(f"\r{self.done} checks, {self.failed} failed ")
                self.stream.flush()
            elif now - self.told >= PAUSE_S:
                self.told = now
                print(f"{self.done} checks, {self.failed} failed", file=self.stream, flush=True)

    def pytest_sessionfinish(self) -> None:
        if self.live:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def pytest_internalerror(self, excrepr: object) -> None:
        print(f"The suite itself broke:\n{excrepr}", file=self.stream)
