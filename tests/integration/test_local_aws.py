"""Given boto3 with the printed endpoint, the log group and the function are there, and an update is really one."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from local_stack import SESSION, LocalStack, local_stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    options = ["--parameter", "PLogFormat=JSON", "--concurrency", "1"]
    with local_stack(tmp_path_factory.mktemp("stack"), *options) as running:
        yield running


def test_one_stream_for_one_environment_with_its_lines_in_order(stack: LocalStack):
    stack.call({"do": "print", "text": "hello from the function"})
    stack.call({"do": "fail", "message": "on purpose"})
    stack.log_lines("platform.report", 2)
    logs = stack.client("logs")
    group = stack.ready["log_group"]
    (stream,) = logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", stream["logStreamName"])
    events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)
    said = [event["message"] for event in events["events"]]
    kinds = [json.loads(line).get("type", "error") if line.startswith("{") else line for line in said]
    assert kinds == [
        "platform.initStart", "platform.start", "hello from the function\n", "on stderr\n", "platform.report",
        "platform.start", "error", "platform.report",
    ]  # fmt: skip
    reports = [json.loads(line)["record"] for line in said if "platform.report" in line]
    cold, failed = (report["metrics"] for report in reports)
    assert cold["billedDurationMs"] >= cold["initDurationMs"] + cold["durationMs"]
    assert "initDurationMs" not in failed
    assert (reports[1]["status"], reports[1]["errorType"]) == ("error", "ValueError")
    assert json.loads(said[6])["errorMessage"] == "on purpose"


def test_all_that_was_printed_stands_before_the_report(stack: LocalStack):
    stack.call({"do": "print", "text": "\n".join(["a line of output " * 6] * 5000)})
    lines = stack.client("lambda").invoke(FunctionName="echo", Payload=b'{"do": "nothing"}')  # the next call's START
    assert lines["StatusCode"] == 200
    logs = stack.client("logs")
    (stream,) = logs.describe_log_streams(logGroupName=stack.ready["log_group"])["logStreams"]
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=stack.ready["log_group"], logStreamNames=[stream["logStreamName"]]
    )
    said = [event["message"] for page in pages for event in page["events"]]
    printed = [index for index, line in enumerate(said) if line.startswith("a line of output")]
    assert len(printed) == 5000
    assert not any("platform." in line for line in said[printed[0] : printed[-1]])


def test_invoke_runs_in_the_pool_and_tells_its_log(stack: LocalStack):
    lam = stack.client("lambda")
    answer = lam.invoke(FunctionName="echo", Payload=b'{"do": "context"}', LogType="Tail")
    assert (answer["StatusCode"], answer.get("FunctionError")) == (200, None)
    context = json.loads(json.loads(answer["Payload"].read())["body"])["answer"]
    assert context["arn"] == "arn:aws:lambda:us-east-1:123456789012:function:echo"
    assert context["request_id"] in base64.b64decode(answer["LogResult"]).decode()
    failed = lam.invoke(FunctionName=context["arn"], Payload=b'{"do": "fail"}')
    assert failed["FunctionError"] == "Unhandled"
    assert json.loads(failed["Payload"].read())["errorType"] == "ValueError"


def test_an_update_recycles_environments(stack: LocalStack):
    lam = stack.client("lambda")
    before = stack.call({"do": "context"}).body
    lam.update_function_configuration(
        FunctionName="echo", MemorySize=384, Timeout=9, Environment={"Variables": {"COLOUR": "blue"}}
    )
    lam.get_waiter("function_updated_v2").wait(FunctionName="echo")
    configuration = lam.get_function_configuration(FunctionName="echo")
    assert (configuration["MemorySize"], configuration["Timeout"]) == (384, 9)
    after = stack.call({"do": "context"}).body
    assert (after["invocation"], after["environment"] != before["environment"]) == (1, True)
    assert after["answer"]["memory"] == "384"
    assert 8000 < after["answer"]["remaining_ms"] <= 9000
    assert stack.call({"do": "look"}).body["answer"]["environ"]["COLOUR"] == "blue"


def invoke_until(done: Callable[[], bool], lam: Any) -> None:
    while not done():
        lam.invoke(FunctionName="echo", Payload=b'{"do": "nothing"}')


def test_past_the_limit_the_invoke_api_says_429(stack: LocalStack):
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(stack.call, {"do": "sleep", "seconds": 2})
        lam = stack.client("lambda")
        with pytest.raises(ClientError) as caught:
            invoke_until(running.done, lam)
        assert caught.value.response["Error"]["Code"] == "TooManyRequestsException"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        assert running.result().status in (200, 500)  # 500 when an invoke held the one environment first


@pytest.mark.parametrize(
    ("name", "payload", "code"),
    [
        pytest.param("nobody", b"{}", "ResourceNotFoundException", id="unknown-function"),
        pytest.param("echo", b"{", "InvalidRequestContentException", id="not-json"),
    ],
)
def test_invoke_refuses(stack: LocalStack, name: str, payload: bytes, code: str):
    with pytest.raises(ClientError) as caught:
        stack.client("lambda").invoke(FunctionName=name, Payload=payload)
    assert caught.value.response["Error"]["Code"] == code


def test_a_client_of_another_region_finds_the_same(stack: LocalStack):
    groups = stack.client("logs", region="ap-northeast-1").describe_log_groups()["logGroups"]
    assert [group["logGroupName"] for group in groups] == [stack.ready["log_group"]]


def test_lines_put_by_hand_are_read_back(stack: LocalStack):
    logs = stack.client("logs")
    logs.create_log_stream(logGroupName=stack.ready["log_group"], logStreamName="by-hand")
    event = {"timestamp": 1795500000000, "message": "by hand"}
    logs.put_log_events(logGroupName=stack.ready["log_group"], logStreamName="by-hand", logEvents=[event])
    assert "by hand" in stack.log_lines("by hand")


def test_metrics_take_data(stack: LocalStack):
    cloudwatch = stack.client("cloudwatch")
    cloudwatch.put_metric_data(Namespace="Test", MetricData=[{"MetricName": "M", "Value": 1.0}])
    assert [metric["MetricName"] for metric in cloudwatch.list_metrics(Namespace="Test")["Metrics"]] == ["M"]


def test_what_is_not_ours_is_motos_with_the_functions_role(stack: LocalStack):
    role = stack.client("lambda").get_function_configuration(FunctionName="echo")["Role"]
    assert [each["Arn"] for each in stack.client("iam").list_roles()["Roles"]] == [role]


def test_layer_versions_are_published_found_by_their_arn_and_deleted(stack: LocalStack):
    lam = stack.client("lambda")
    made = lam.publish_layer_version(LayerName="one", Content={"ZipFile": b"x"}, CompatibleRuntimes=["python3.11"])
    arn = made["LayerVersionArn"]
    assert arn == "arn:aws:lambda:us-east-1:123456789012:layer:one:1"
    assert lam.get_layer_version_by_arn(Arn=arn)["CompatibleRuntimes"] == ["python3.11"]
    lam.delete_layer_version(LayerName="one", VersionNumber=1)
    with pytest.raises(ClientError) as caught:
        lam.get_layer_version_by_arn(Arn=arn)
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_percentiles_and_refusals_of_cloudwatch(stack: LocalStack):
    cloudwatch = stack.client("cloudwatch")
    now = datetime.now(UTC)
    values = [float(value) for value in range(1, 101)]
    cloudwatch.put_metric_data(Namespace="Test", MetricData=[{"MetricName": "P", "Values": values, "Timestamp": now}])
    asked = {
        "Namespace": "Test", "MetricName": "P", "StartTime": now - timedelta(hours=1),
        "EndTime": now + timedelta(hours=1), "Period": 60,
    }  # fmt: skip
    (point,) = cloudwatch.get_metric_statistics(**asked, ExtendedStatistics=["p50", "p99"])["Datapoints"]
    assert point["ExtendedStatistics"] == {"p50": 50.0, "p99": 99.0}
    with pytest.raises(ClientError, match="p101 for parameter Stat is not supported"):
        cloudwatch.get_metric_statistics(**asked, ExtendedStatistics=["p101"])
    stat = {"Metric": {"Namespace": "Test", "MetricName": "P"}, "Period": 60, "Stat": "p99"}
    share = {"Id": "share", "Expression": "100 * p99 / (1000 * 2)", "Label": "percent"}
    queries = [share, {"Id": "p99", "MetricStat": stat, "ReturnData": False}]
    (told,) = cloudwatch.get_metric_data(
        MetricDataQueries=queries, StartTime=asked["StartTime"], EndTime=asked["EndTime"]
    )["MetricDataResults"]
    assert (told["Label"], told["Values"], told["StatusCode"]) == ("percent", [4.95], "Complete")
    search = [{"Id": "a", "Expression": "SEARCH('Test', 'Sum')"}]
    with pytest.raises(ClientError, match="does not compute SEARCH") as caught:
        cloudwatch.get_metric_data(MetricDataQueries=search, StartTime=asked["StartTime"], EndTime=asked["EndTime"])
    assert caught.value.response["Error"]["Code"] == "ValidationError"


def test_insights_queries_are_answered(stack: LocalStack):
    logs = stack.client("logs")
    group = stack.ready["log_group"]
    stack.call({"do": "print", "text": "marked by insights"})
    now = int(datetime.now(UTC).timestamp())
    asked = {"logGroupNames": [group], "startTime": now - 3600, "endTime": now + 60}
    reports = "filter type = 'platform.report' | stats count(*) as n, max(record.metrics.memorySizeMB) as size"
    query = logs.start_query(**asked, queryString=reports)["queryId"]
    answer = logs.get_query_results(queryId=query)
    (row,) = answer["results"]
    figures = {cell["field"]: float(cell["value"]) for cell in row}
    assert answer["status"] == "Complete"
    assert (figures["n"] >= 1, figures["size"] >= 256) == (True, True)
    assert answer["statistics"]["recordsScanned"] > answer["statistics"]["recordsMatched"] == figures["n"]
    marked = "fields @message, @log | filter @message like /marked by/ and @message not like /httpMethod/"
    limited = logs.start_query(**asked, queryString=marked, limit=1)["queryId"]
    ((message, log),) = logs.get_query_results(queryId=limited)["results"]
    assert message["value"] == "marked by insights\n"
    assert log["value"].endswith(group)
    described = logs.describe_queries(logGroupName=group, maxResults=1)
    assert [each["queryId"] for each in described["queries"]] == [limited]
    assert "nextToken" in described
    for call, wanted, code in (
        (logs.start_query, {**asked, "queryString": "filter ="}, "MalformedQueryException"),
        (logs.start_query, {**asked, "logGroupNames": ["none"], "queryString": "limit 1"}, "ResourceNotFoundException"),
        (logs.get_query_results, {"queryId": "none"}, "ResourceNotFoundException"),
        (logs.stop_query, {"queryId": query}, "InvalidParameterException"),
    ):
        with pytest.raises(ClientError) as caught:
            call(**wanted)
        assert caught.value.response["Error"]["Code"] == code


def test_live_tail_tells_lines_as_they_come(stack: LocalStack):
    """boto3 reads the stream: its own decoder checks lengths and checksums."""
    logs = SESSION.client(
        "logs", endpoint_url=stack.ready["aws_endpoint_url"], region_name="us-east-1", aws_access_key_id="test",
        aws_secret_access_key="test", config=Config(inject_host_prefix=False),
    )  # fmt: skip
    arn = f"arn:aws:logs:us-east-1:123456789012:log-group:{stack.ready['log_group']}"
    asked = {"logGroupIdentifiers": [arn], "logEventFilterPattern": '"tailed"'}
    stream = logs.start_live_tail(**asked)["responseStream"]
    updates = iter(stream)
    started = next(updates)["sessionStart"]
    assert (started["logGroupIdentifiers"], started["logEventFilterPattern"]) == ([arn], '"tailed"')
    stack.call({"do": "print", "text": "tailed ünd true\nnot this"})
    while not (results := next(updates)["sessionUpdate"]["sessionResults"]):
        pass
    assert [result["message"] for result in results] == ["tailed ünd true\n"]
    assert results[0]["logGroupIdentifier"] == f"123456789012:{stack.ready['log_group']}"
    stream.close()
    for wrong in ({"logGroupIdentifiers": [arn + "-none"]}, {**asked, "logEventFilterPattern": "{ $.x"}):
        with pytest.raises(ClientError):
            logs.start_live_tail(**wrong)
