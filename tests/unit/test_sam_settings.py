"""Deployment settings: the file, the environment over it, and what is written back."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sam import rules, settings
from sam.settings import SettingsError

EXAMPLE = Path(__file__).parents[2] / "etc" / "environment.sh.example"


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "environment.sh"
    file.write_text("# note\n\nP_FN_MEMORY=512\nP_FN_TIMEOUT=20\nexport BUCKET=mine\nO_LAYER_ARN=arn:x:1\n")
    given = settings.read(file, {"P_FN_MEMORY": "2048", "HOME": "/", "AWS_DEFAULT_REGION": "eu-west-1"})
    assert given.parameters() == {"PFnMemory": "2048", "PFnTimeout": "20", "PLayerArn": "arn:x:1"}
    assert (given.get("BUCKET"), given.get("AWS_REGION"), given.stack) == ("mine", "eu-west-1", "code-interpreter")


def test_the_example_is_valid_and_says_the_templates_defaults() -> None:
    given = settings.read(EXAMPLE, {})
    deployment = rules.read(rules.TEMPLATE, given.parameters())
    assert rules.findings(deployment) == []
    assert deployment.parameters == rules.read(rules.TEMPLATE).parameters


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("P_FN_MEMORY = 512", id="spaces"),
        pytest.param('P_FN_MEMORY="512"', id="quotes"),
        pytest.param("memory", id="no-value"),
    ],
)
def test_a_line_that_make_and_sh_would_read_apart_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "environment.sh"
    file.write_text(f"P_STAGE=dev\n{line}\n")
    with pytest.raises(SettingsError, match=r"environment.sh:2 must be NAME=value"):
        settings.read(file, {})


def test_writing_changes_its_own_lines_only(tmp_path: Path) -> None:
    file = tmp_path / "new" / ".env"
    settings.write(file, {"MCP_API_KEY": "one"}, private=True)
    file.write_text("# mine\nMCP_API_KEY=one\nAWS_REGION=x\nMCP_API_KEY=twice\n")
    settings.write(file, {"MCP_API_KEY": "two", "MCP_ENDPOINT_URL": "u"}, private=True)
    assert file.read_text() == "# mine\nMCP_API_KEY=two\nAWS_REGION=x\nMCP_ENDPOINT_URL=u\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert settings.line_of(file, "MCP_API_KEY") == "two"
    settings.write(file, {"MCP_API_KEY": None, "MCP_ENDPOINT_URL": None})
    assert file.read_text() == "# mine\nAWS_REGION=x\n"
