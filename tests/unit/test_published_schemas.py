"""What the commands write for machines names a schema that is published, current, and not empty of meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.published_schemas import CONFORMANCE, MODELS, UNNAMED, published, schemas, validated

NAMES = [CONFORMANCE, *MODELS]


@pytest.mark.parametrize(("name", "path", "schema"), [pytest.param(*one, id=one[0]) for one in schemas()])
def test_the_published_schema_is_what_the_model_writes(name: str, path: Path, schema: dict[str, Any]) -> None:
    assert json.loads(path.read_text()) == schema, "run python -m tests.published_schemas"
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == name
    assert name in UNNAMED or schema["properties"]["schema"]["const"] == name


@pytest.mark.parametrize("name", NAMES)
def test_a_document_of_another_version_or_without_a_member_is_refused(name: str) -> None:
    schema = published(name)
    assert len(schema["required"]) > 1, "a schema that asks for nothing cannot fail"
    with pytest.raises(jsonschema.ValidationError):
        validated({} if name in UNNAMED else {"schema": name}, name)
    if name not in UNNAMED:
        other = schema["properties"]["schema"]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(name.replace("/1", "/2"), other)


def test_members_may_be_added_under_the_same_name() -> None:
    told = {
        "schema": "ops-finding/1",
        "id": "stage",
        "level": "wrong",
        "says": "There is no stage dev.",
        "mend": "",
        "since": "a member of a later release",
    }
    assert validated(told) == "ops-finding/1"
    with pytest.raises(jsonschema.ValidationError):
        validated(told | {"level": "bad"})
