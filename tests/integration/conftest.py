"""Servers that tests share: the product on the local stack, echo functions on stacks of a test's own, the reference."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_stack import ROOT, LocalStack, Start, local_stack

from tests.broken_servers import matrix


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with local_stack(tmp_path_factory.mktemp("product"), "--template", str(ROOT / "sam" / "template.yaml")) as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts stacks on the echo function, `start(*options, **parameters_of_its_template)`; the test's end ends them."""
    with contextlib.ExitStack() as running:

        def begin(*options: str, **parameters: str) -> LocalStack:
            given = [f"--parameter={name}={value}" for name, value in parameters.items()]
            return running.enter_context(local_stack(tmp_path, *options, *given))

        yield begin


@pytest.fixture(scope="module")
def reference() -> Iterator[str]:
    """The base URL of the reference server, correct and with one fault by path (tests/broken_servers)."""
    with matrix.reference() as url:
        yield url
