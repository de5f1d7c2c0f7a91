"""The catalogue and the checks agree: no check names an unknown id, no row claims a check it does not have."""

import re

import pytest
from pydantic import ValidationError

from conformance import catalogue
from conformance.catalogue import Level, Requirement
from conformance.plugin import declare_markers
from conformance.report import coverage


@pytest.fixture(autouse=True)
def _markers(pytestconfig: pytest.Config) -> None:
    declare_markers(pytestconfig)


def test_every_id_a_check_names_is_in_the_catalogue() -> None:
    unknown = set(coverage.import_checks()) - set(catalogue.load())
    assert unknown == set()


def test_every_row_that_says_how_it_is_checked_has_a_check() -> None:
    served = coverage.import_checks()
    asleep = [one.id for one in catalogue.load().values() if one.check and one.id not in served]
    assert asleep == []


def test_every_row_that_has_a_check_says_how() -> None:
    served = coverage.import_checks()
    assert [one.id for one in catalogue.load().values() if one.unchecked and one.id in served] == []


def test_sources_name_a_document_and_not_an_alias() -> None:
    assert [one.id for one in catalogue.load().values() if re.match(r"(?:[A-Z]{1,2}\d\d|DOC)\b", one.source)] == []


def test_coverage_table_counts_every_catalogue() -> None:
    table = coverage.render()
    for name in ("2025-11-25", "2026-07-28", "contract", "security"):
        assert re.search(rf"^{name}: \d+ of \d+ requirements have checks$", table, re.MULTILINE)
    assert "no check yet" not in table


def test_a_row_needs_exactly_one_of_check_and_unchecked() -> None:
    row = {"id": "X-01", "level": "MUST", "text": "t", "source": "s", "catalogue": "c"}
    with pytest.raises(ValidationError, match="exactly one"):
        Requirement.model_validate(row)
    with pytest.raises(ValidationError, match="exactly one"):
        Requirement.model_validate(row | {"check": "a", "unchecked": "b"})


def test_strongest_level_decides() -> None:
    assert catalogue.strongest(["T26-23", "T26-13"]) is Level.MUST
    assert catalogue.strongest(["T26-23", "T26-26"]) is Level.SHOULD
    assert catalogue.strongest(["T26-23"]) is Level.DERIVED
