"""The product as a user meets it: the real template and function on the local stack, one for all tests that ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from local_stack import ROOT, LocalStack, local_stack


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with local_stack(tmp_path_factory.mktemp("product"), "--template", str(ROOT / "sam" / "template.yaml")) as running:
        yield running
