"""Given a SAM template, this is what the local stack runs, and this is the sentence when it cannot."""

from pathlib import Path

import pytest

from sam.local.stack import Permission, Route, StackError, configured, read_stack
from sam.local.throttle import UsagePlan

TEMPLATE = Path(__file__).parents[2] / "sam" / "template.yaml"

SMALL = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  PName: {Type: String, Default: small}
  PBig: {Type: String, Default: "no"}
Conditions:
  Big: !Equals [!Ref PBig, "yes"]
  Small: !Not [Condition: Big]
Resources:
  Function:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: !Sub "${PName}-${AWS::Region}"
      Runtime: python3.12
      Handler: handler.handler
      CodeUri: code
      MemorySize: !If [Big, 2048, 256]
      Timeout: 7
      ReservedConcurrentExecutions: !If [Small, 3, !Ref AWS::NoValue]
      Environment: {Variables: {GROUP: !GetAtt Group.Arn, NUMBER: 5}}
  Group:
    Type: AWS::Logs::LogGroup
    Properties: {LogGroupName: !Join ["/", ["/x", !Ref PName]]}
  Api:
    Type: AWS::Serverless::Api
    Properties:
      StageName: prod
      DefinitionBody: {Fn::Transform: {Name: AWS::Include, Parameters: {Location: api.yaml}}}
"""
API = """
openapi: 3.0.1
info: {title: x, version: "1"}
paths:
  /a/{name}:
    get: {responses: {}}
    post: {security: [{key: []}], responses: {}}
components: {securitySchemes: {key: {type: apiKey, name: x-api-key, in: header}}}
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    (tmp_path / "code").mkdir()
    (tmp_path / "api.yaml").write_text(API)
    path = tmp_path / "template.yaml"
    path.write_text(SMALL)
    return path


def test_the_template_we_deploy_is_the_one_we_run():
    stack = read_stack(TEMPLATE)
    assert stack.function_name == "code-interpreter"
    assert stack.log_group == "/aws/lambda/code-interpreter"
    assert (stack.memory_mb, stack.timeout_s, stack.log_format, stack.stage) == (1024, 60, "JSON", "dev")
    assert stack.code_dir == TEMPLATE.parents[1] / "function"
    tenant = "context.identity.apiKeyId"
    assert stack.routes == (
        Route("/lambda/health", "GET", True, "live", tenant),
        Route("/lambda/mcp", "ANY", True, "live", tenant),
    )


def test_a_layer_is_told_by_its_arn():
    arn = "arn:aws:lambda:us-east-1:123456789012:layer:interpreter:7"
    assert read_stack(TEMPLATE).layers == ()
    assert read_stack(TEMPLATE, {"PLayerArn": arn}).layers == (arn,)


def test_an_integration_has_a_timeout_of_its_own(small: Path):
    post = "post: {security: [{key: []}], responses: {}}"
    integration = "x-amazon-apigateway-integration: {timeoutInMillis: 1500}"
    (small.parent / "api.yaml").write_text(API.replace(post, f"{post[:-1]}, {integration}}}"))
    assert {route.method: route.timeout_s for route in read_stack(small).routes} == {"GET": 29.0, "POST": 1.5}


def test_parameters_go_over_defaults():
    given = {"PFnMemory": "2048", "PFnConcurrency": "4", "PAuth": "none", "PMcpResponse": "json"}
    stack = read_stack(TEMPLATE, given)
    assert (stack.memory_mb, stack.reserved_concurrency, stack.routes[1].api_key_required) == (2048, 4, False)
    assert stack.environment["MCP_RESPONSE"] == "json"


ECHO = Path(__file__).parents[1] / "integration" / "functions" / "template.yaml"


def test_what_decides_about_environments_is_read_from_the_template():
    plain = read_stack(ECHO)
    assert (plain.per_tenant, plain.snap_start, plain.alias, plain.tracing) == (False, False, None, False)
    assert plain.routes == (Route("/lambda/mcp", "ANY", True),)
    tenants = read_stack(ECHO, {"PTenants": "yes", "PTracing": "Active", "PQuota": "7", "PRateLimit": "3"})
    assert (tenants.per_tenant, tenants.tracing) == (True, True)
    assert tenants.usage_plan == UsagePlan(3, 3, 7, "MONTH")
    assert tenants.routes[0].tenant == "context.identity.apiKeyId"
    snap = read_stack(ECHO, {"PSnapStart": "yes"})
    assert (snap.snap_start, snap.alias, snap.routes[0].qualifier) == (True, "live", "live")


@pytest.mark.parametrize(
    ("snap_start", "qualifier"), [pytest.param("no", None, id="function"), pytest.param("yes", "live", id="alias")]
)
def test_what_the_gateway_may_invoke_is_read_from_the_template(snap_start: str, qualifier: str | None):
    source = "arn:aws:execute-api:us-east-1:123456789012:local00000/dev/*/lambda/*"
    (told,) = read_stack(ECHO, {"PSnapStart": snap_start}).permissions
    assert told == Permission("Permission", qualifier, "lambda:InvokeFunction", "apigateway.amazonaws.com", source)


def test_signatures_are_not_pretended():
    with pytest.raises(StackError, match="wants IAM signatures, which the local stack cannot check"):
        read_stack(TEMPLATE, {"PAuth": "iam"})


def test_intrinsic_functions_and_an_included_file(small: Path):
    stack = read_stack(small)
    assert stack.function_name == "small-eu-west-1"
    assert (stack.memory_mb, stack.reserved_concurrency) == (256, 3)
    assert stack.environment == {"GROUP": "arn:aws:logs:eu-west-1:123456789012:log-group:/x/small", "NUMBER": "5"}
    assert stack.routes == (Route("/a/{name}", "GET", False), Route("/a/{name}", "POST", True))
    big = read_stack(small, {"PBig": "yes"})
    assert (big.memory_mb, big.reserved_concurrency) == (2048, None)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        pytest.param("CodeUri: code", "CodeUri: elsewhere", "which is not a directory", id="no-code"),
        pytest.param("CodeUri: code", "CodeUri: s3://b/k", "must be a local directory", id="code-in-s3"),
        pytest.param("Location: api.yaml", "Location: none.yaml", "No such file", id="no-openapi"),
        pytest.param("Timeout: 7", "Timeout: 901", "timeout must be 1 to 900 s, got 901", id="timeout"),
        pytest.param("!If [Big, 2048, 256]", "100", "memory must be 128 to 10240 MB, got 100", id="memory"),
        pytest.param("AWS::Serverless::Function", "AWS::SNS::Topic", "has 0 resources of type", id="no-function"),
        pytest.param("!Equals [!Ref PBig", "!Equals [!Ref PNone", "Ref names PNone", id="unknown-reference"),
        pytest.param("!Join [", "!Select [", "cannot resolve Fn::Select", id="unknown-intrinsic"),
        pytest.param("Handler: handler.handler", "Handler: [", "is not YAML", id="not-yaml"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_sentence(small: Path, old: str, new: str, sentence: str):
    assert old in SMALL
    small.write_text(SMALL.replace(old, new))
    with pytest.raises(StackError, match=sentence) as caught:
        read_stack(small)
    assert "\n" not in str(caught.value)


def test_an_unknown_parameter_names_those_there_are(small: Path):
    with pytest.raises(StackError, match="no parameter PBug; it has PBig, PName"):
        read_stack(small, {"PBug": "1"})


def test_flags_go_over_the_template_and_meet_the_same_limits(small: Path):
    stack = configured(read_stack(small), memory_mb=512, timeout_s=20, environment={"NUMBER": "6"})
    assert (stack.memory_mb, stack.timeout_s, stack.environment["NUMBER"]) == (512, 20, "6")
    with pytest.raises(StackError, match="got 64"):
        configured(stack, memory_mb=64)


def test_binary_media_types_are_read_as_sam_writes_them(tmp_path: Path):
    text = TEMPLATE.read_text().replace("../function", str(TEMPLATE.parents[1] / "function"))
    text = text.replace("openapi.yaml", str(TEMPLATE.parent / "openapi.yaml"))
    stage = "      StageName: !Ref PStage\n"
    assert stage in text
    changed = tmp_path / "template.yaml"
    changed.write_text(text.replace(stage, stage + "      BinaryMediaTypes: [application~1json]\n", 1))
    assert read_stack(TEMPLATE).binary_media_types == ()
    assert read_stack(changed).binary_media_types == ("application/json",)
