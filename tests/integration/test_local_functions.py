"""Given boto3's Lambda client, versions, aliases, limits and copies behave as on AWS, and environments follow them."""

import base64
import io
import json
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from local_stack import DEADLINE_S, LocalStack, local_stack, publish_what_cannot_start

CONTEXT, NOTHING = b'{"do": "context"}', b'{"do": "nothing"}'


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with local_stack(tmp_path_factory.mktemp("stack"), "--concurrency", "3") as running:
        yield running


@pytest.fixture
def lam(stack: LocalStack) -> Iterator[Any]:
    """A client; the function is as deployed before and after."""
    client = stack.client("lambda")
    yield client
    for alias in client.list_aliases(FunctionName="echo")["Aliases"]:
        client.delete_alias(FunctionName="echo", Name=alias["Name"])
    for version in client.list_versions_by_function(FunctionName="echo")["Versions"][1:]:
        client.delete_function(FunctionName="echo", Qualifier=version["Version"])
    client.delete_function_concurrency(FunctionName="echo")
    update(client, MemorySize=256, Timeout=10, Environment={"Variables": {"COLOUR": "green"}})


def update(client: Any, **change: Any) -> dict[str, Any]:
    told = client.update_function_configuration(FunctionName="echo", **change)
    waiter = client.get_waiter("function_updated_v2")
    waiter.config.delay = 0.05
    waiter.wait(FunctionName="echo")
    return dict(told)


def publish(client: Any, **asked: Any) -> dict[str, Any]:
    """A version that is ready to be called."""
    made = dict(client.publish_version(FunctionName="echo", **asked))
    waiter = client.get_waiter("published_version_active")
    waiter.config.delay = 0.05
    waiter.wait(FunctionName="echo", Qualifier=made["Version"])
    return made


def told(answer: dict[str, Any]) -> Any:
    """What the function answered to Invoke."""
    return json.loads(json.loads(answer["Payload"].read())["body"])


def refused(call: Callable[..., Any], **asked: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**asked)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def test_an_update_is_in_progress_and_then_successful(lam: Any):
    before = lam.get_function_configuration(FunctionName="echo")
    during = lam.update_function_configuration(FunctionName="echo", MemorySize=300)
    assert (during["MemorySize"], during["LastUpdateStatus"], during["State"]) == (300, "InProgress", "Active")
    assert during["RevisionId"] != before["RevisionId"]
    busy = refused(lam.update_function_configuration, FunctionName="echo", MemorySize=301)
    assert busy == (409, "ResourceConflictException")
    update_done = lam.get_waiter("function_updated_v2")
    update_done.config.delay = 0.05
    update_done.wait(FunctionName="echo")
    after = lam.get_function_configuration(FunctionName="echo")
    assert (after["LastUpdateStatus"], after["RevisionId"]) == ("Successful", during["RevisionId"])
    assert told(lam.invoke(FunctionName="echo", Payload=CONTEXT))["answer"]["memory"] == "300"


def test_a_stale_revision_is_a_412(lam: Any):
    stale = lam.get_function_configuration(FunctionName="echo")["RevisionId"]
    update(lam, Timeout=9)
    asked = {"FunctionName": "echo", "RevisionId": stale}
    assert refused(lam.update_function_configuration, Timeout=8, **asked) == (412, "PreconditionFailedException")
    assert refused(lam.publish_version, **asked) == (412, "PreconditionFailedException")
    current = lam.get_function_configuration(FunctionName="echo")["RevisionId"]
    assert update(lam, Timeout=8, RevisionId=current)["Timeout"] == 8


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({"MemorySize": 10241}, "ValidationException", id="memory"),
        pytest.param({"Timeout": 901}, "ValidationException", id="timeout"),
        pytest.param({"Runtime": "python3.13"}, "InvalidParameterValueException", id="runtime"),
        pytest.param({"EphemeralStorage": {"Size": 10241}}, "ValidationException", id="storage"),
        pytest.param({"Description": "x" * 257}, "ValidationException", id="description"),
        pytest.param(
            {"Layers": ["arn:aws:lambda:us-east-1:1:layer:x:1"]}, "InvalidParameterValueException", id="layer"
        ),
        pytest.param(
            {"Environment": {"Variables": {"AWS_REGION": "x"}}},
            "InvalidParameterValueException",
            id="reserved-variable",
        ),
        pytest.param(
            {"Environment": {"Variables": {"A": "x" * 4096}}}, "InvalidParameterValueException", id="too-many-variables"
        ),
    ],
)
def test_an_update_that_cannot_be(lam: Any, change: dict[str, Any], code: str):
    assert refused(lam.update_function_configuration, FunctionName="echo", **change) == (400, code)
    assert lam.get_function_configuration(FunctionName="echo")["MemorySize"] == 256


def test_a_version_keeps_its_configuration_and_has_environments_of_its_own(lam: Any):
    update(lam, MemorySize=320)
    published = lam.publish_version(FunctionName="echo", Description="first")
    number, arn = published["Version"], published["FunctionArn"]
    assert (published["State"], published["StateReasonCode"], "LastUpdateStatus" in published) == (
        "Pending", "Creating", False,
    )  # fmt: skip
    assert refused(lam.invoke, FunctionName="echo", Qualifier=number) == (409, "ResourceConflictException")
    assert publish(lam)["Version"] == number
    assert arn == f"arn:aws:lambda:us-east-1:123456789012:function:echo:{number}"
    again = publish(lam, Description="second")  # nothing else has changed
    assert (again["Version"], again["Description"]) == (number, "first")
    update(lam, MemorySize=384)
    latest = lam.invoke(FunctionName="echo", Payload=CONTEXT)
    versioned = lam.invoke(FunctionName="echo", Qualifier=number, Payload=CONTEXT)
    assert (latest["ExecutedVersion"], versioned["ExecutedVersion"]) == ("$LATEST", number)
    one, other = told(latest), told(versioned)
    assert (one["answer"]["memory"], other["answer"]["memory"]) == ("384", "320")
    assert one["environment"] != other["environment"]
    assert other["answer"]["arn"] == arn
    again = told(lam.invoke(FunctionName=arn, Payload=CONTEXT))
    assert (again["environment"], again["invocation"]) == (other["environment"], 2)
    assert lam.get_function_configuration(FunctionName="echo", Qualifier=number)["MemorySize"] == 320
    assert refused(lam.invoke, FunctionName="echo", Qualifier="77") == (404, "ResourceNotFoundException")


def test_what_the_policy_does_not_let_the_gateway_call_it_does_not_call(stack: LocalStack, lam: Any):
    template = json.loads(lam.get_policy(FunctionName="echo")["Policy"])["Statement"][0]
    assert stack.call({"do": "nothing"}).status == 200
    lam.remove_permission(FunctionName="echo", StatementId=template["Sid"])
    nothing = refused(lam.get_policy, FunctionName="echo")
    assert nothing == (404, "ResourceNotFoundException")
    assert refused(lam.remove_permission, FunctionName="echo", StatementId=template["Sid"]) == nothing
    assert stack.call({"do": "nothing"}).status == 500
    asked = {"FunctionName": "echo", "StatementId": "of-another-stage", "Action": "lambda:InvokeFunction"}
    asked |= {"Principal": "apigateway.amazonaws.com"}
    source = template["Condition"]["ArnLike"]["AWS:SourceArn"]
    lam.add_permission(**asked, SourceArn=source.replace("/dev/", "/prod/"))
    assert refused(lam.add_permission, **asked) == (409, "ResourceConflictException")
    assert stack.call({"do": "nothing"}).status == 500
    lam.add_permission(**asked | {"StatementId": template["Sid"]}, SourceArn=source)
    assert stack.call({"do": "nothing"}).status == 200


def test_a_version_whose_snapshot_cannot_be_taken_fails(stack: LocalStack, lam: Any):
    told = publish_what_cannot_start(lam, "import a_module_that_is_not_there")
    assert (told["State"], told["StateReasonCode"]) == ("Failed", "FunctionError.RuntimeInitError")
    assert "Runtime.ImportModuleError" in told["StateReason"]
    assert refused(lam.invoke, FunctionName="broken:1", Payload=NOTHING) == (409, "ResourceConflictException")
    lam.delete_function(FunctionName="broken")
    stack.client("logs").delete_log_group(logGroupName="/aws/lambda/broken")


def test_an_alias_stands_for_a_version_and_moves(lam: Any):
    first = publish(lam)["Version"]
    update(lam, MemorySize=512)
    second = publish(lam)["Version"]
    alias = lam.create_alias(FunctionName="echo", Name="live", FunctionVersion=first)
    assert alias["AliasArn"].endswith(":function:echo:live")
    answer = lam.invoke(FunctionName="echo", Qualifier="live", Payload=CONTEXT)
    assert (answer["ExecutedVersion"], told(answer)["answer"]["arn"]) == (first, alias["AliasArn"])
    moved = lam.update_alias(FunctionName="echo", Name="live", FunctionVersion=second, RevisionId=alias["RevisionId"])
    assert lam.invoke(FunctionName="echo:live", Payload=NOTHING)["ExecutedVersion"] == second
    stale = {"FunctionName": "echo", "Name": "live", "RevisionId": alias["RevisionId"]}
    assert refused(lam.update_alias, **stale) == (412, "PreconditionFailedException")
    weights = {"AdditionalVersionWeights": {first: 1.0}}
    lam.update_alias(FunctionName="echo", Name="live", RoutingConfig=weights, RevisionId=moved["RevisionId"])
    assert lam.get_alias(FunctionName="echo", Name="live")["RoutingConfig"] == weights
    assert lam.invoke(FunctionName="echo", Qualifier="live", Payload=NOTHING)["ExecutedVersion"] == first
    in_use = refused(lam.delete_function, FunctionName="echo", Qualifier=second)
    assert in_use == (409, "ResourceConflictException")
    lam.delete_alias(FunctionName="echo", Name="live")
    assert refused(lam.get_alias, FunctionName="echo", Name="live") == (404, "ResourceNotFoundException")
    bad = {"FunctionName": "echo", "Name": "x", "FunctionVersion": "99"}
    assert refused(lam.create_alias, **bad) == (404, "ResourceNotFoundException")


def test_publishing_wants_the_code_and_revision_that_are_named(lam: Any):
    found = lam.get_function_configuration(FunctionName="echo")
    asked = {"FunctionName": "echo", "CodeSha256": "A" * 43 + "="}
    assert refused(lam.publish_version, **asked) == (400, "InvalidParameterValueException")
    named = {"CodeSha256": found["CodeSha256"], "RevisionId": found["RevisionId"]}
    first = publish(lam, Description="first", **named)["Version"]
    update(lam, Description="changed on $LATEST")
    second = publish(lam)
    assert (int(second["Version"]), second["Description"]) == (int(first) + 1, "changed on $LATEST")


@pytest.mark.parametrize(
    ("alias", "weights"),
    [
        pytest.param("{first}", {"{first}": 0.1}, id="the-same-version"),
        pytest.param("$LATEST", {"{first}": 0.1}, id="of-latest"),
        pytest.param("{first}", {"{second}": 0.1, "{third}": 0.1}, id="two-more"),
        pytest.param("{first}", {"{second}": 1.1}, id="more-than-all"),
        pytest.param("{first}", {"99": 0.1}, id="no-such-version"),
    ],
)
def test_weights_that_an_alias_cannot_have(lam: Any, alias: str, weights: dict[str, float]):
    numbers = {}
    for name in ("first", "second", "third"):
        update(lam, Description=name)
        numbers[name] = publish(lam)["Version"]
    routing = {"AdditionalVersionWeights": {key.format(**numbers): weight for key, weight in weights.items()}}
    asked = {"FunctionName": "echo", "Name": "x", "FunctionVersion": alias.format(**numbers), "RoutingConfig": routing}
    status, code = refused(lam.create_alias, **asked)
    assert (status, code) in {
        (400, "InvalidParameterValueException"), (400, "ValidationException"), (404, "ResourceNotFoundException"),
    }  # fmt: skip
    assert lam.list_aliases(FunctionName="echo")["Aliases"] == []


def test_reserved_concurrency_is_a_429_past_it_and_0_stops_all(stack: LocalStack, lam: Any):
    assert "ReservedConcurrentExecutions" not in lam.get_function_concurrency(FunctionName="echo")
    lam.put_function_concurrency(FunctionName="echo", ReservedConcurrentExecutions=0)
    assert lam.get_function_concurrency(FunctionName="echo")["ReservedConcurrentExecutions"] == 0
    assert lam.get_function(FunctionName="echo")["Concurrency"] == {"ReservedConcurrentExecutions": 0}
    with pytest.raises(ClientError) as caught:
        lam.invoke(FunctionName="echo", Payload=NOTHING)
    assert caught.value.response["Error"]["Code"] == "TooManyRequestsException"
    assert caught.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert stack.call({"do": "nothing"}).status == 500
    lam.delete_function_concurrency(FunctionName="echo")
    assert lam.invoke(FunctionName="echo", Payload=NOTHING)["StatusCode"] == 200
    too_much = {"FunctionName": "echo", "ReservedConcurrentExecutions": 901}
    assert refused(lam.put_function_concurrency, **too_much) == (400, "InvalidParameterValueException")


def test_provisioned_environments_are_there_before_the_first_call(stack: LocalStack, lam: Any):
    number = publish(lam, Description="for provisioned")["Version"]
    where = {"FunctionName": "echo", "Qualifier": number}
    assert refused(lam.get_provisioned_concurrency_config, **where)[0] == 404
    put = lam.put_provisioned_concurrency_config(**where, ProvisionedConcurrentExecutions=2)
    assert put["Status"] in ("IN_PROGRESS", "READY")
    deadline = time.monotonic() + DEADLINE_S
    while (config := lam.get_provisioned_concurrency_config(**where))["Status"] != "READY":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert config["AvailableProvisionedConcurrentExecutions"] == 2
    seen = told(lam.invoke(**where, Payload=b'{"do": "look"}'))
    assert seen["answer"]["environ"]["AWS_LAMBDA_INITIALIZATION_TYPE"] == "provisioned-concurrency"
    init = [line for line in stack.settled_log() if line.startswith("INIT_REPORT")]
    assert len(init) == 2
    assert all(line.endswith("\tPhase: init\tStatus: success\n") for line in init)
    with ThreadPoolExecutor(3) as threads:
        ask = {**where, "Payload": b'{"do": "look", "wait": 1}'}
        answers = list(threads.map(lambda _: told(lam.invoke(**ask)), range(3)))
    kinds = sorted(answer["answer"]["environ"]["AWS_LAMBDA_INITIALIZATION_TYPE"] for answer in answers)
    assert kinds == ["on-demand", "provisioned-concurrency", "provisioned-concurrency"]
    assert refused(lam.put_provisioned_concurrency_config, **where, ProvisionedConcurrentExecutions=9)[0] == 400
    latest = {"FunctionName": "echo", "Qualifier": "$LATEST", "ProvisionedConcurrentExecutions": 1}
    assert refused(lam.put_provisioned_concurrency_config, **latest)[0] == 400
    listed = lam.list_provisioned_concurrency_configs(FunctionName="echo")["ProvisionedConcurrencyConfigs"]
    assert [config["RequestedProvisionedConcurrentExecutions"] for config in listed] == [2]
    lam.delete_provisioned_concurrency_config(**where)
    assert refused(lam.get_provisioned_concurrency_config, **where)[0] == 404


def test_the_log_result_is_the_tail_of_that_invocation(lam: Any):
    printing = {"do": "print", "text": "\n".join(f"line {number:06d}" for number in range(2000))}
    answer = lam.invoke(FunctionName="echo", Payload=json.dumps(printing).encode(), LogType="Tail")
    tail = base64.b64decode(answer["LogResult"])
    assert len(tail) == 4096
    assert b"line 001999" in tail
    assert b"line 000001" not in tail
    assert tail.rstrip().splitlines()[-1].startswith(b"REPORT RequestId: ")


def test_a_copy_made_from_the_downloaded_code_runs_and_logs_on_its_own(stack: LocalStack, lam: Any):
    found = lam.get_function(FunctionName="echo")
    with urllib.request.urlopen(found["Code"]["Location"]) as response:
        code = response.read()
    assert len(code) == found["Configuration"]["CodeSize"]
    assert "handler.py" in zipfile.ZipFile(io.BytesIO(code)).namelist()
    wanted = {name: found["Configuration"][name] for name in ("Runtime", "Role", "Handler", "Environment")}
    made = lam.create_function(FunctionName="copy", Code={"ZipFile": code}, MemorySize=192, **wanted)
    assert made["CodeSha256"] == found["Configuration"]["CodeSha256"]
    assert refused(lam.create_function, FunctionName="copy", Code={"ZipFile": code}, **wanted)[0] == 409
    waiter = lam.get_waiter("function_active_v2")
    waiter.config.delay = 0.05
    waiter.wait(FunctionName="copy")
    answer = told(lam.invoke(FunctionName="copy", Payload=CONTEXT))["answer"]
    assert (answer["memory"], answer["arn"].rpartition(":")[2]) == ("192", "copy")
    assert refused(lam.delete_function, FunctionName="copy", Qualifier="$LATEST")[0] == 400
    published = lam.create_function(FunctionName="released", Code={"ZipFile": code}, Publish=True, **wanted)
    assert (published["Version"], published["FunctionArn"].rpartition(":")[2]) == ("1", "released")
    lam.delete_function(FunctionName="released")
    assert {f["FunctionName"] for f in lam.list_functions()["Functions"]} == {"echo", "copy"}
    lam.delete_function(FunctionName="copy")
    assert refused(lam.invoke, FunctionName="copy", Payload=CONTEXT) == (404, "ResourceNotFoundException")
    groups = stack.client("logs").describe_log_groups(logGroupNamePrefix="/aws/lambda/")["logGroups"]
    assert [group["logGroupName"] for group in groups] == ["/aws/lambda/copy", "/aws/lambda/echo"]
    broken = {"ZipFile": b"no archive"}
    assert refused(lam.create_function, FunctionName="other", Code=broken, **wanted)[0] == 400


def test_metrics_tell_what_was_called(stack: LocalStack, lam: Any):
    cloudwatch = stack.client("cloudwatch")
    number = publish(lam, Description="for metrics")["Version"]
    lam.create_alias(FunctionName="echo", Name="counted", FunctionVersion=number)
    ask = {"FunctionName": "echo", "Qualifier": "counted"}
    for payload in (NOTHING, NOTHING, b'{"do": "sleep", "seconds": 0.2}', b'{"do": "fail"}'):
        lam.invoke(**ask, Payload=payload)
    lam.put_function_concurrency(FunctionName="echo", ReservedConcurrentExecutions=0)
    assert refused(lam.invoke, **ask)[0] == 429
    now = datetime.now(UTC)
    dimensions = [{"Name": "FunctionName", "Value": "echo"}, {"Name": "Resource", "Value": "echo:counted"}]
    asked = {
        "Namespace": "AWS/Lambda", "StartTime": now - timedelta(minutes=5), "EndTime": now + timedelta(minutes=5),
        "Period": 3600, "Dimensions": dimensions,
    }  # fmt: skip
    sums = {}
    for name in ("Invocations", "Errors", "Throttles"):
        points = cloudwatch.get_metric_statistics(**asked, MetricName=name, Statistics=["Sum"])["Datapoints"]
        sums[name] = sum(point["Sum"] for point in points)
    assert sums == {"Invocations": 4, "Errors": 1, "Throttles": 1}
    stat = {
        "Metric": {"Namespace": "AWS/Lambda", "MetricName": "Duration", "Dimensions": dimensions}, "Period": 3600,
    }  # fmt: skip
    queries = [{"Id": name.lower(), "MetricStat": {**stat, "Stat": name}} for name in ("p50", "p99", "Maximum")]
    data = cloudwatch.get_metric_data(
        MetricDataQueries=queries, StartTime=asked["StartTime"], EndTime=asked["EndTime"]
    )["MetricDataResults"]
    figures = {result["Id"]: max(result["Values"]) for result in data}
    assert 200 <= figures["p99"] == figures["maximum"] < 1000 * DEADLINE_S
    assert figures["p50"] < figures["p99"]


def test_shapes_of_what_the_other_tests_do_not_ask_for(lam: Any):
    settings = lam.get_account_settings()
    assert settings["AccountLimit"]["ConcurrentExecutions"] == 1000
    page = lam.list_versions_by_function(FunctionName="echo", MaxItems=1)
    assert [version["Version"] for version in page["Versions"]] == ["$LATEST"]
