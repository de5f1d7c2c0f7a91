"""Local stacks: the product as a user meets it, one for all tests that ask, and echo functions of a test's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_stack import ROOT, LocalStack, Start, local_stack


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
