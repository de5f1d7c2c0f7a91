"""The deployment without AWS: the make targets' own steps against ministack, then the smoke checks through its gateway.

ministack knows neither API Gateway's ANY method in an OpenAPI file nor metric math in alarms, and plays no tenants; the
packaged template is changed in the first two points before it is deployed, and in nothing else.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import httpx
import pytest
import yaml
from local_stack import DEADLINE_S, ROOT
from ministack_server import made_ready, ministack
from samtranslator.yaml_helper import yaml_parse

from sam import settings


@dataclass
class Deployed:
    """A deployment on ministack: `url` of its endpoint there, and the files that the steps wrote."""

    url: str
    key: str
    directory: Path
    environment: dict[str, str]
    arn: str

    def step(self, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        return step(self.directory, self.environment, name, *options)

    def client(self, service: str) -> object:
        return boto3.client(
            service, endpoint_url=self.environment["AWS_ENDPOINT_URL"], region_name="us-east-1",
            aws_access_key_id="test", aws_secret_access_key="test",
        )  # fmt: skip


def step(directory: Path, environment: dict[str, str], name: str, *options: str) -> subprocess.CompletedProcess[str]:
    files = ["--settings", str(directory / "environment.sh"), "--env", str(directory / ".env")]
    return subprocess.run(
        [sys.executable, "-m", "sam.deploy", name, *files, "--work", str(directory), *options],
        cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


def must(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def adapt(packaged: Path) -> None:
    """What ministack does not know, see the top of this file."""
    template = yaml_parse(packaged.read_text())
    for alarm in ("MemoryAlarm", "DurationAlarm"):
        del template["Resources"][alarm]
    api = yaml_parse((ROOT / "sam" / "openapi.yaml").read_text())
    endpoint = api["paths"]["/lambda/mcp"]
    endpoint["post"] = endpoint.pop("x-amazon-apigateway-any-method")
    template["Resources"]["Api"]["Properties"]["DefinitionBody"] = api
    packaged.write_text(yaml.safe_dump(template, sort_keys=False))


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    for tool in ("sam", "ministack"):
        made_ready(tool)
    directory = tmp_path_factory.mktemp("deploy")
    with ministack(directory) as base:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "P_", "O_"))}
        environment |= {
            "AWS_ENDPOINT_URL": base, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test", "AWS_CONFIG_FILE": "/dev/null",
        }  # fmt: skip
        arn = must(step(directory, environment, "layer")).splitlines()[-1]  # after the size table
        must(step(directory, environment, "apigw.package"))
        adapt(directory / "apigw.yaml")
        endpoint = must(step(directory, environment, "apigw.deploy"))
        assert settings.line_of(directory / ".env", "MCP_ENDPOINT_URL") == endpoint
        api = endpoint.removeprefix("https://").partition(".")[0]
        url = f"{base}/restapis/{api}/dev/_user_request_/lambda/mcp/"
        assert settings.line_of(directory / ".env", "AWS_DEFAULT_REGION") == "us-east-1"
        key = settings.line_of(directory / ".env", "MCP_API_KEY")
        assert key
        yield Deployed(url, key, directory, environment, arn)


def test_the_smoke_checks_pass_with_the_key(deployed: Deployed, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "conformance", deployed.url, "--smoke", "--out", str(tmp_path / "out")]
    environment = {**deployed.environment, "MCP_API_KEY": deployed.key}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict: pass" in done.stdout


def test_without_the_key_it_is_403(deployed: Deployed, tmp_path: Path) -> None:
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    for headers in ({}, {"x-api-key": "wrong"}):
        answer = httpx.post(deployed.url, json=ask, headers=headers, timeout=DEADLINE_S)
        assert (answer.status_code, answer.json()) == (403, {"message": "Forbidden"})
    command = [sys.executable, "-m", "conformance", deployed.url, "--smoke", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=tmp_path, env=without_key(deployed), capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stdout + done.stderr


def without_key(deployed: Deployed) -> dict[str, str]:
    """An environment that names no key; the working directory has no .env either."""
    environment = {name: value for name, value in deployed.environment.items() if name != "MCP_API_KEY"}
    return environment | {"PYTHONPATH": str(ROOT)}


def test_what_was_deployed_is_what_the_settings_say(deployed: Deployed) -> None:
    function = deployed.client("lambda").get_function_configuration(FunctionName="code-interpreter")  # type: ignore[attr-defined]
    assert (function["MemorySize"], function["Timeout"], function["Runtime"]) == (1024, 60, "python3.12")
    assert function["LoggingConfig"]["LogFormat"] == "JSON"
    assert [layer["Arn"] for layer in function["Layers"]] == [deployed.arn]
    assert settings.line_of(deployed.directory / "environment.sh", "O_LAYER_ARN") == deployed.arn
    assert deployed.key not in (deployed.directory / "ministack.log").read_text()


def test_the_exec_wrapper_is_uploaded_as_a_program(deployed: Deployed) -> None:
    function = yaml_parse((deployed.directory / "apigw.yaml").read_text())["Resources"]["Function"]["Properties"]
    wrapper = function["Environment"]["Variables"]["AWS_LAMBDA_EXEC_WRAPPER"].removeprefix("/var/task/")
    bucket, _, key = function["CodeUri"].removeprefix("s3://").partition("/")
    body = deployed.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()  # type: ignore[attr-defined]
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.getinfo(wrapper).external_attr >> 16 & 0o555 == 0o555


def test_clients_get_a_version_and_each_release_sends_its_code(deployed: Deployed, tmp_path: Path) -> None:
    alias = deployed.client("lambda").get_alias(FunctionName="code-interpreter", Name="live")  # type: ignore[attr-defined]
    assert alias["FunctionVersion"].isdecimal()

    def code_of(packaged: Path) -> str:
        return str(yaml_parse(packaged.read_text())["Resources"]["Function"]["Properties"]["CodeUri"])

    (tmp_path / "environment.sh").write_text((deployed.directory / "environment.sh").read_text())
    must(step(tmp_path, {**deployed.environment, "P_RATE_LIMIT": "60"}, "apigw.package"))
    first, second = code_of(deployed.directory / "apigw.yaml"), code_of(tmp_path / "apigw.yaml")
    assert first.rpartition("/")[2] == second.rpartition("/")[2]  # the digest of what is in it
    assert first != second


def test_again_changes_nothing_and_the_end_is_asked_for(deployed: Deployed) -> None:
    """The last test of the file: it deletes the stack."""
    before = (deployed.directory / ".env").read_text()
    assert must(deployed.step("layer.deploy")) == deployed.arn
    must(deployed.step("apigw.deploy"))
    assert (deployed.directory / ".env").read_text() == before
    refused = deployed.step("apigw.delete")
    assert (refused.returncode, "nobody can answer here; say --yes" in refused.stderr) == (2, True)
    switched = step(deployed.directory, {**deployed.environment, "P_ISOLATION": "none"}, "apigw.deploy")
    assert (switched.returncode, "cannot switch tenant isolation" in switched.stderr) == (2, True)
    must(deployed.step("apigw.delete", "--yes"))
    assert settings.line_of(deployed.directory / ".env", "MCP_API_KEY") is None
    assert "nothing to delete" in deployed.step("apigw.delete").stderr
