"""Where the endpoint, the credentials and the claims come from, and that no credential gets into what is recorded."""

import subprocess
from pathlib import Path

import pytest

from conformance.client import Client
from conformance.target import UsageFault, load_profile, read_header, read_target
from conformance.wire import Request

URL = "http://127.0.0.1:9/mcp"


def test_flag_wins_over_environment_over_dotenv(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text('MCP_ENDPOINT_URL="http://dotenv/"\nOTHER=1\n')

    def host(url: str | None, environment: dict[str, str]) -> str:
        target = read_target(url, profile="lambda", headers=[], timeout_s=1, environment=environment, dotenv=dotenv)
        return target.endpoint.host

    assert host("http://flag/", {"MCP_ENDPOINT_URL": "http://environment/"}) == "flag"
    assert host(None, {"MCP_ENDPOINT_URL": "http://environment/"}) == "environment"
    assert host(None, {}) == "dotenv"


@pytest.mark.parametrize(
    "option",
    [
        pytest.param("Authorization=Bearer abc", id="literal-value"),
        pytest.param("Authorization", id="no-value"),
        pytest.param("bad name=env:X", id="bad-name"),
        pytest.param("X=env:UNSET", id="unset-variable"),
        pytest.param("X=@/no/such/file", id="missing-file"),
        pytest.param("X=env:LINES", id="line-break"),
    ],
)
def test_unusable_headers_are_refused_without_their_value(option: str) -> None:
    with pytest.raises(UsageFault) as fault:
        read_header(option, {"LINES": "a\nb"})
    assert "abc" not in str(fault.value)


def test_headers_come_from_files_and_variables(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("Bearer secret-token\n")
    assert read_header(f"Authorization=@{tmp_path / 'token'}", {}) == ("Authorization", "Bearer secret-token")
    assert read_header("x-api-key=env:KEY", {"KEY": "k-123"}) == ("x-api-key", "k-123")


def test_api_key_of_the_environment_is_sent_unless_given() -> None:
    environment = {"MCP_API_KEY": "key-of-the-environment", "OTHER": "key-of-the-flag"}
    target = read_target(URL, profile="lambda", headers=[], timeout_s=1, environment=environment)
    assert target.credentials == (("x-api-key", "key-of-the-environment"),)
    target = read_target(URL, profile="lambda", headers=["X-Api-Key=env:OTHER"], timeout_s=1, environment=environment)
    assert target.credentials == (("X-Api-Key", "key-of-the-flag"),)


def test_no_credential_is_recorded() -> None:
    secret = "very-secret-value"
    target = read_target(
        URL, profile="lambda", headers=["Authorization=env:S"], timeout_s=1, environment={"S": f"Bearer {secret}"}
    )
    client = Client(target)
    headers = (("Authorization", f" Bearer {secret}"), ("X-Echo", f" {secret}"))
    shown = client._curl(Request("POST", "/mcp", headers, f'{{"x":"{secret}"}}'.encode()))
    assert secret not in shown
    assert secret not in repr(target)
    assert target.redact(f"echo {secret} and Bearer {secret}") == "echo *** and ***"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"x":"it\'s"}', id="quote"),
        pytest.param(b'{"x":"\xff\xfe","y":"it\'s \\\\ \\n \xc3\xa9"}', id="no-utf-8"),
    ],
)
def test_shown_request_can_be_repeated_in_bash(body: bytes) -> None:
    client = Client(read_target(URL, profile="lambda", headers=[], timeout_s=1, environment={}))
    shown = client._curl(Request("POST", "/mcp", (), body))
    assert shown.startswith("curl -sS -i -X POST --data-binary ")
    command = f'curl() {{ printf %s "$6"; }}; {shown}'
    assert subprocess.run(["bash", "-c", command], capture_output=True).stdout == body


@pytest.mark.parametrize("name", ["no-such-profile", "/no/such/file.yaml"])
def test_unknown_profiles_are_named(name: str) -> None:
    with pytest.raises(UsageFault, match="lambda"):
        load_profile(name)


def test_a_broken_profile_is_a_usage_fault(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\n")
    with pytest.raises(UsageFault, match="cannot be read"):
        load_profile(str(path))


@pytest.mark.parametrize(("url", "timeout_s"), [(None, 1), ("nonsense", 1), (URL, 0)])
def test_unusable_targets_are_usage_faults(tmp_path: Path, url: str | None, timeout_s: float) -> None:
    with pytest.raises(UsageFault, match=r"\.$"):
        read_target(url, profile="lambda", headers=[], timeout_s=timeout_s, environment={}, dotenv=tmp_path / "none")
