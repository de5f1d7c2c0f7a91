"""Our rules: the template we deploy keeps them, in each of its variants, and each is broken by what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from samtranslator.yaml_helper import yaml_parse

from sam import rules
from sam.deploy import snap_started

SAM = Path(__file__).parents[2] / "sam"


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="as-it-comes"),
        pytest.param({"PIsolation": "snap_start"}, id="snap-start"),
        pytest.param({"PIsolation": "none", "PFnStorage": "10240"}, id="no-isolation"),
        pytest.param({"PAuth": "iam"}, id="iam"),
        pytest.param({"PAuth": "none", "POpenOnPurpose": "yes", "PIsolation": "none"}, id="open-on-purpose"),
        pytest.param({"PEgress": "none"}, id="no-egress"),
        pytest.param({"PTracing": "PassThrough", "PLogFormat": "Text"}, id="no-traces"),
        pytest.param({"PRuntime": "python3.14", "PArchitecture": "arm64"}, id="newest"),
    ],
)
def test_the_template_keeps_every_rule(parameters: dict[str, str]) -> None:
    assert rules.findings(rules.read(SAM / "template.yaml", parameters)) == []


SNAP_START = ("      TenancyConfig: !If [", "      SnapStart: {ApplyOn: PublishedVersions}\n      X: !If [")
BESIDE = {"PIsolation": "none"}


@pytest.mark.parametrize(
    ("old", "new", "parameters", "sentence"),
    [
        pytest.param("MemorySize: !Ref PFnMemory", "MemorySize: 20480", {}, "has 20480 MB of memory", id="memory"),
        pytest.param("", "", {"PFnMemory": "100"}, "has 100 MB of memory", id="memory-by-parameter"),
        pytest.param("Timeout: !Ref PFnTimeout", "Timeout: 901", {}, "a timeout of 901 s", id="timeout"),
        pytest.param("", "", {"PFnTimeout": "14"}, "a timeout of 14 s", id="timeout-too-short"),
        pytest.param("", "", {"PFnStorage": "10241"}, "has 10241 MB of /tmp", id="storage"),
        pytest.param(
            *SNAP_START, {"PIsolation": "snap_start", "PFnStorage": "1024"}, "SnapStart takes no more than 512",
            id="snap-start-storage",
        ),
        pytest.param(
            SNAP_START[0], SNAP_START[1].replace("X:", "PackageType: Image\n      X:"), BESIDE, "a container image",
            id="snap-start-image",
        ),
        pytest.param(
            SNAP_START[0], SNAP_START[1].replace("X:", "FileSystemConfigs: [x]\n      X:"), BESIDE, "a file system",
            id="snap-start-file-system",
        ),
        pytest.param(
            SNAP_START[0], SNAP_START[1].replace("X:", "ProvisionedConcurrencyConfig: {}\n      X:"), BESIDE,
            "SnapStart and provisioned concurrency", id="snap-start-provisioned",
        ),
        pytest.param(
            "      TenancyConfig:", "      SnapStart: {ApplyOn: PublishedVersions}\n      TenancyConfig:", {},
            "tenant isolation and SnapStart", id="tenant-snap-start",
        ),
        pytest.param(
            "      TenancyConfig:", "      ProvisionedConcurrencyConfig: {}\n      TenancyConfig:", {},
            "tenant isolation and provisioned concurrency", id="tenant-provisioned",
        ),
        pytest.param(
            "      TenancyConfig:", "      FunctionUrlConfig: {AuthType: NONE}\n      TenancyConfig:", {},
            "tenant isolation and a function URL", id="tenant-url",
        ),
        pytest.param("      TenancyConfig:", "      X:", {}, "isolates none", id="tenant-header-without-isolation"),
        pytest.param("X-Amz-Tenant-Id", "X-Other", {}, "names no tenant", id="tenant-unnamed"),
        pytest.param("- UsesApiKey\n", "- UsesIam\n", {}, "takes its tenant from the API key", id="tenant-keyless"),
        pytest.param(
            "AWS_IAM, NONE", "NONE, NONE", {"PAuth": "iam"}, "takes its tenant from the caller's signature",
            id="tenant-unsigned",
        ),
        pytest.param("${Alias}/", "${Function.Arn}/", {}, "calls no alias of the function", id="latest-serves"),
        pytest.param("Type: AWS::Lambda::Alias", "Type: X", {}, "calls no alias of the function", id="no-alias"),
        pytest.param(
            "FunctionName: !Ref Alias", "FunctionName: !Ref Function", {}, "is for no alias", id="permission-elsewhere"
        ),
        pytest.param("- UsesApiKey\n", "- UsesIam\n", BESIDE, "asks nothing of its callers", id="open"),
        pytest.param("", "", {"PAuth": "none", "PIsolation": "none"}, "asks nothing of its callers", id="by-choice"),
        pytest.param("Type: AWS::ApiGateway::UsagePlan\n", "Type: X\n", {}, "no usage plan has one", id="no-plan"),
        pytest.param("AWS::ApiGateway::UsagePlanKey", "X", {}, "no usage plan has one", id="key-in-no-plan"),
        pytest.param("      Quota: {", "      X: {", {}, "no throttle or no quota", id="no-quota"),
        pytest.param("      Throttle: {", "      X: {", {}, "no throttle or no quota", id="no-throttle"),
        pytest.param("EnableDnsSupport: false", "X: 1", {"PEgress": "none"}, "has a DNS resolver", id="dns"),
        pytest.param("CidrIp: 127.0.0.1/32", "CidrIp: 0.0.0.0/0", {"PEgress": "none"}, "lets traffic out", id="egress"),
        pytest.param("SecurityGroupEgress:", "X:", {"PEgress": "none"}, "lets traffic out", id="no-egress-rule"),
        pytest.param("VpcConfig: !If", "X: !If", {"PEgress": "none"}, "is not in the network", id="not-in-vpc"),
        pytest.param(
            "  SubnetA:\n", "  Nat:\n    Type: AWS::EC2::NatGateway\n  SubnetA:\n", {"PEgress": "none"},
            "is a way out", id="nat",
        ),
        pytest.param(
            "", "", {"PEgress": "none", "PCodeNetwork": "public"}, "open sockets in a network without", id="sockets"
        ),
        pytest.param("Runtime: !Ref PRuntime", "Runtime: python3.11", {}, "runs on python3.11", id="runtime"),
        pytest.param("      RetentionInDays:", "      X:", {}, "keeps its logs for ever", id="retention"),
        pytest.param("        LogGroup: !Ref LogGroup\n", "", {}, "names no log group", id="log-group"),
        pytest.param("logs:PutLogEvents]", "logs:PutLogEvents, s3:GetObject]", {}, "allows s3:GetObject", id="role"),
        pytest.param("      Policies:\n        - PolicyName: logs-only",
                     "      ManagedPolicyArns: [x]\n      Policies:\n        - PolicyName: logs-only",
                     {}, "has managed policies", id="managed-policy"),
        pytest.param("Action: ec2:*", "Action: s3:*", {"PEgress": "none"}, "allows ec2:CreateNetworkInterface",
                     id="interfaces-not-denied"),
        pytest.param("      Handler:", "      Policies: [AdministratorAccess]\n      Handler:", {}, "has Policies",
                     id="sam-policies"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_told(
    tmp_path: Path, old: str, new: str, parameters: dict[str, str], sentence: str
) -> None:
    found = False
    for name in ("template.yaml", "openapi.yaml"):
        text = (SAM / name).read_text()
        found = found or old in text
        (tmp_path / name).write_text(text.replace(old, new) if old else text)
    assert found, f"{old!r} is in neither file"
    findings = rules.findings(rules.read(tmp_path / "template.yaml", parameters))
    assert any(sentence in finding for finding in findings), findings


def test_every_rule_is_broken_above(tmp_path: Path) -> None:
    """A rule that no case breaks would not be missed."""
    cases = test_what_breaks_a_rule_is_told.pytestmark[0].args[1]
    silent = {rule.__name__ for rule in rules.RULES}
    for case in cases:
        old, new, parameters, _ = case.values
        for name in ("template.yaml", "openapi.yaml"):
            text = (SAM / name).read_text()
            (tmp_path / name).write_text(text.replace(old, new) if old else text)
        deployment = rules.read(tmp_path / "template.yaml", parameters)
        silent -= {rule.__name__ for rule in rules.RULES if list(rule(deployment))}
    assert not silent


def test_snap_start_takes_the_place_of_tenants(tmp_path: Path) -> None:
    document = yaml_parse((SAM / "template.yaml").read_text())
    built = tmp_path / "template.yaml"
    built.write_text(snap_started(yaml.safe_dump(document)))
    (tmp_path / "openapi.yaml").write_text((SAM / "openapi.yaml").read_text())
    assert rules.findings(rules.read(built, {"PIsolation": "snap_start"})) == []
    (function,) = rules.read(built, {"PIsolation": "snap_start"}).functions
    assert function[1]["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    assert "TenancyConfig" not in function[1]
    assert any("names a tenant" in finding for finding in rules.findings(rules.read(built)))


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        pytest.param([], 0, "", id="valid"),
        pytest.param(["--parameter", "PFnMemory=64"], 1, "has 64 MB of memory", id="broken"),
        pytest.param(["--parameter", "PFnMemory=lots"], 2, "must be a whole number", id="not-a-number"),
        pytest.param(["--parameter", "PMemory=64"], 2, "has no parameter PMemory; it has PAlarm", id="unknown"),
        pytest.param(["--parameter", "PAuth=basic"], 2, "must be one of api_key, iam, none", id="not-allowed"),
        pytest.param(["--parameter", "PFnMemory"], 2, "wants NAME=VALUE", id="no-value"),
        pytest.param(["--template", "none.yaml"], 2, "cannot read none.yaml", id="no-template"),
    ],
)
def test_the_command(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, sentence: str) -> None:
    assert rules.run(arguments) == code
    assert sentence in capsys.readouterr().err
