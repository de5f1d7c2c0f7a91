"""What is missing for a deployment is told in one sentence each, before anything is done; no network is used."""

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from sam import deploy
from sam.dependencies import layer


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for the settings, with no AWS configuration of the machine in sight."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "P_", "O_"))]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / "layer.yaml").write_text("")
    (tmp_path / "apigw.yaml").write_text("")
    monkeypatch.setattr(deploy, "_sam", lambda *_: pytest.fail("the SAM CLI was run"))
    return tmp_path


def run(place: Path, step: str, lines: str = "", *options: str) -> int:
    (place / "environment.sh").write_text(lines)
    files = ["--settings", str(place / "environment.sh"), "--env", str(place / ".env"), "--work", str(place)]
    return deploy.run([step, *files, *options])


REGION = "AWS_REGION=us-east-1\n"
ARN = "O_LAYER_ARN=arn:aws:lambda:us-east-1:1:layer:x:1\n"


@pytest.mark.parametrize(
    ("step", "lines", "sentence"),
    [
        pytest.param("layer.deploy", "", "no region is set; put AWS_REGION into", id="no-region"),
        pytest.param("layer.deploy", REGION, "no AWS credentials were found; put AWS_PROFILE", id="no-credentials"),
        pytest.param(
            "layer.deploy", "AWS_PROFILE=nobody\n", "AWS_PROFILE names nobody, which ~/.aws does not have", id="profile"
        ),
        pytest.param("apigw.package", REGION, "O_LAYER_ARN is not in .*; run make layer first", id="no-layer"),
        pytest.param(
            "apigw.package", ARN + "P_FN_MEMORY=64\n", "has 64 MB of memory; Lambda takes 128 to 10240", id="memory"
        ),
        pytest.param(
            "apigw.deploy", ARN + "P_ISOLATION=snap_start\nP_FN_STORAGE=1024\n", "SnapStart takes no more than 512 MB",
            id="snap-start-storage",
        ),
        pytest.param("apigw.deploy", ARN + "P_AUTH=none\n", "say P_OPEN_ON_PURPOSE=yes as well", id="open"),
        pytest.param("apigw.deploy", ARN + "P_MEMORY=64\n", "has no parameter PMemory; it has PAlarm", id="typo"),
        pytest.param("apigw.deploy", "P_STAGE = dev\n", "must be NAME=value", id="unreadable"),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_told_before_anything_is_done(
    place: Path, capsys: pytest.CaptureFixture[str], step: str, lines: str, sentence: str
) -> None:
    assert run(place, step, lines) == 2
    assert re.search(sentence, capsys.readouterr().err)


@pytest.mark.parametrize("step", ["layer.deploy", "apigw.deploy"])
def test_nothing_packaged_is_nothing_to_deploy(place: Path, capsys: pytest.CaptureFixture[str], step: str) -> None:
    for name in ("layer.yaml", "apigw.yaml"):
        (place / name).unlink()
    assert run(place, step, REGION + ARN) == 2
    assert f"nothing is packaged; run make {step.partition('.')[0]}.package first" in capsys.readouterr().err


@pytest.fixture
def account(place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An account of moto's, with credentials."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        yield boto3.Session(region_name="us-east-1")


def test_a_bucket_that_is_not_there_is_told(place: Path, account: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "layer.deploy", REGION + "BUCKET=nowhere-to-be-found\n") == 2
    assert "BUCKET names nowhere-to-be-found, which does not exist; make it with aws s3 mb" in capsys.readouterr().err


def test_credentials_that_aws_refuses_are_told(
    place: Path, account: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ClientError({"Error": {"Code": "ExpiredToken", "Message": "it has expired"}}, "GetCallerIdentity")

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", refuse)
    assert run(place, "layer.deploy", REGION) == 3
    assert "AWS refuses the credentials: " in capsys.readouterr().err


def test_an_endpoint_that_is_not_there_is_told(
    place: Path, account: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise deploy.BotoCoreError

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", unreachable)
    assert run(place, "layer.deploy", REGION) == 3
    assert "AWS cannot be reached: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "isolation", "sentence"),
    [
        pytest.param("ROLLBACK_COMPLETE", "tenant", "can only be deleted; run make apigw.delete", id="rolled-back"),
        pytest.param("CREATE_COMPLETE", "none", "P_ISOLATION=none, and Lambda cannot switch", id="isolation"),
    ],
)
def test_a_stack_that_cannot_be_updated_is_left_alone(
    place: Path, account: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    status: str, isolation: str, sentence: str,
) -> None:  # fmt: skip
    parameters = [{"ParameterKey": "PIsolation", "ParameterValue": isolation}]
    monkeypatch.setattr(deploy, "_stack", lambda *_: {"StackStatus": status, "Parameters": parameters})
    assert run(place, "apigw.deploy", REGION + ARN) == 2
    assert sentence in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Cloud:
    """CloudFormation with one stack, as far as a deletion needs it."""

    region_name = "us-east-1"

    def __init__(self) -> None:
        self.stacks = ["code-interpreter"]

    def client(self, _: str) -> Cloud:
        return self

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        if StackName not in self.stacks:
            raise ClientError({"Error": {"Code": "ValidationError", "Message": "does not exist"}}, "DescribeStacks")
        outputs = [{"OutputKey": "Endpoint", "OutputValue": "https://here/"}]
        return {"Stacks": [{"StackStatus": "CREATE_COMPLETE", "StackId": "arn", "Outputs": outputs}]}

    def delete_stack(self, StackName: str) -> None:
        self.stacks.remove(StackName)

    def get_waiter(self, _: str) -> Cloud:
        return self

    def wait(self, **_: str) -> None:
        assert self.stacks == []


@pytest.mark.parametrize(
    ("answer", "options", "deleted"),
    [
        pytest.param("code-interpreter\n", (), True, id="its-name"),
        pytest.param("yes\n", (), False, id="not-its-name"),
        pytest.param("\n", (), False, id="nothing"),
        pytest.param("", ("--yes",), True, id="script"),
    ],
)
def test_delete_wants_the_name_typed(
    place: Path, monkeypatch: pytest.MonkeyPatch, answer: str, options: tuple[str, ...], deleted: bool
) -> None:
    cloud = Cloud()
    monkeypatch.setattr(deploy, "_aws", lambda _: cloud)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    (place / ".env").write_text("MCP_ENDPOINT_URL=https://here/\nMCP_API_KEY=k\nMINE=1\n")
    assert run(place, "apigw.delete", REGION, *options) == (0 if deleted else 2)
    assert cloud.stacks == ([] if deleted else ["code-interpreter"])
    left = (place / ".env").read_text().splitlines()
    assert left == (["MINE=1"] if deleted else ["MCP_ENDPOINT_URL=https://here/", "MCP_API_KEY=k", "MINE=1"])


@pytest.mark.parametrize(
    ("role", "before", "choice"),
    [
        pytest.param(None, None, "create", id="account-without-role"),
        pytest.param("arn:x", None, "existing", id="account-with-role"),
        pytest.param("arn:x", "create", "create", id="made-by-this-stack"),
    ],
)
def test_the_accounts_log_role_is_made_once(role: str | None, before: str | None, choice: str) -> None:
    class Session:
        def client(self, _: str) -> Any:
            return self

        def get_account(self) -> dict[str, str]:
            return {"cloudwatchRoleArn": role} if role else {}

    stack = {"Parameters": [{"ParameterKey": "PApiLogRole", "ParameterValue": before}]} if before else None
    assert deploy.api_log_role(Session(), stack) == choice  # type: ignore[arg-type]


def test_a_release_is_named_by_code_and_parameters(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("1")
    first = deploy.release({"PFnMemory": "512"}, tmp_path)
    assert deploy.release({"PFnMemory": "512"}, tmp_path) == first
    assert deploy.release({"PFnMemory": "513"}, tmp_path) != first
    (tmp_path / "handler.py").write_text("2")
    assert deploy.release({"PFnMemory": "512"}, tmp_path) != first


def test_a_built_function_is_tidied(tmp_path: Path) -> None:
    for name in ("handler.py", ".mypy_cache/x.json", "interpreter/child.py", "__pycache__/old.cpython-39.pyc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    deploy.tidy(tmp_path, layer.find_python("3.12"))
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    compiled = {"__pycache__/handler.cpython-312.pyc", "interpreter/__pycache__/child.cpython-312.pyc"}
    assert left == {"handler.py", "interpreter/child.py"} | compiled
    (tmp_path / "handler.py").write_text("def\n")
    with pytest.raises(deploy.DeployError, match="the function does not compile"):
        deploy.tidy(tmp_path, layer.find_python("3.12"))
