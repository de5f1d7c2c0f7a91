"""Given an endpoint that speaks StartLiveTail's event stream, `ops logs tail --live` prints it, and what it missed.

The stub serves bytes; boto3's own decoder reads them and checks their lengths and checksums.
"""

import io
import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ops import aws, live_tail
from ops.__main__ import run
from ops.command import Surroundings
from ops.logs import Pace, read_events
from sam.local.live_tail import encoded

GROUP = "/aws/lambda/code-interpreter"
ARN = f"arn:aws:logs:us-east-1:111122223333:log-group:{GROUP}"


def update(*messages, sampled=False):
    results = [
        {"logGroupIdentifier": f"111122223333:{GROUP}", "logStreamName": "2026/11/24/[7]abcdef01", "message": message}
        | {"timestamp": 1_795_500_000_000 + n, "ingestionTime": 1_795_500_000_100}
        for n, message in enumerate(messages)
    ]
    told = {"sessionMetadata": {"sampled": sampled}, "sessionResults": results}
    return encoded({":event-type": "sessionUpdate"}, told)


START = encoded({":event-type": "initial-response"}, {}) + encoded({":event-type": "sessionStart"}, {"sessionId": "s"})
TIMED_OUT = encoded({":exception-type": "SessionTimeoutException"}, {"message": "three hours"}, kind="exception")


def refusal(code, status=400):
    return status, json.dumps({"__type": code, "message": "no"}).encode()


@contextmanager
def serving(*sessions):
    """An endpoint whose n-th StartLiveTail is answered with the n-th of `sessions`; yields its URL and what it heard.

    A session is (chunks of the stream, whether its end is clean), or a refusal.
    """
    heard = []
    left = list(sessions)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            operation = self.headers["x-amz-target"].partition(".")[2]
            heard.append((operation, self.headers["host"], asked))
            if operation == "DescribeLogGroups":
                groups = [{"logGroupName": GROUP + "-2"}, {"logGroupName": GROUP, "arn": f"{ARN}:*"}]
                self.answer(200, json.dumps({"logGroups": groups}).encode())
                return
            session = left.pop(0)
            if isinstance(session[0], int):
                self.answer(*session)
                return
            self.send_response(200)
            self.send_header("content-type", "application/vnd.amazon.eventstream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            chunks, clean = session
            for chunk in chunks:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            if clean:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("content-type", "application/x-amz-json-1.1")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "OPS_LOG_GROUP", "P_FN_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ops.command.Pace", lambda rate: Pace(rate, sleep=lambda _: None))


# How a test ends a tail that would go on for ever.
LAST = refusal("AccessDeniedException")


def tail(url, *argv):
    around = Surroundings(lambda: datetime(2026, 11, 24, 6, tzinfo=UTC), UTC, out=io.StringIO(), err=io.StringIO())
    code = run(["logs", "tail", "--live", "--group", GROUP, "--endpoint-url", url, *argv], around)
    return code, around.out.getvalue(), around.err.getvalue()


def test_lines_are_printed_filtered_and_kept(tmp_path):
    lines = ([START + update("one\n", "two ünd\n"), update(), update("three\n")], True)
    with serving(lines, LAST) as (url, heard):
        code, out, _ = tail(url, "--grep", "t", "--pattern", "?one ?t", "--out", str(tmp_path))
    assert code == 3  # the second session was refused
    assert out == ("2026-11-24 06:00:00.001 UTC abcdef01 two ünd\n2026-11-24 06:00:00.000 UTC abcdef01 three\n")
    assert [(e.group, e.message) for e in read_events(tmp_path / "events.jsonl")] == [
        (GROUP, "one\n"),
        (GROUP, "two ünd\n"),
        (GROUP, "three\n"),
    ]
    operation, host, asked = heard[-1]
    assert (operation, host) == ("StartLiveTail", url.removeprefix("http://")), "nothing goes before the host"
    assert asked == {"logGroupIdentifiers": [ARN], "logEventFilterPattern": "?one ?t"}


@pytest.mark.parametrize(
    ("session", "said"),
    [
        pytest.param(([START + update("x\n", sampled=True)], True), "AWS left lines out", id="sampled"),
        pytest.param(([START + update("x\n")], True), "ended by AWS and is renewed", id="ended"),
        pytest.param(([START + update("x\n") + TIMED_OUT], True), "(SessionTimeoutException) and is", id="three-hours"),
        pytest.param(([START + update("x\n"), update("y")[:-9]], False), "broke off", id="cut-in-a-message"),
        pytest.param(([START + update("x\n")[:-4], b"\0\0\0\0"], True), "(ChecksumMismatch) and", id="garbled"),
    ],
)  # fmt: skip
def test_a_session_that_ends_is_renewed_and_what_may_be_missing_is_said(session, said):
    with serving(session, ([START + update("after\n")], True), LAST) as (url, _):
        _, out, err = tail(url)
    assert out.endswith("abcdef01 after\n")
    assert said in err


def test_sessions_that_break_again_and_again_are_given_up():
    with serving(*[([START], False)] * 6) as (url, heard):
        code, _, err = tail(url)
    assert code == 3
    assert err.count("broke off") == 5
    assert "does not answer" in err
    assert [operation for operation, *_ in heard].count("StartLiveTail") == 6


@pytest.mark.parametrize("answer", [refusal("UnknownOperationException"), refusal("NotImplemented", 501)])
def test_where_there_is_no_live_tail_it_is_said(answer):
    with serving(answer) as (url, _):
        code, _, err = tail(url)
    assert code == 2
    assert "There is no live tail at this endpoint; leave out --live and follow with -f." in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        pytest.param(["--group", GROUP + "-3"], "There is no log group", id="unknown-group"),
        pytest.param([f"--group={GROUP}{n}" for n in range(10)], "takes 10 log groups, not 11", id="eleven-groups"),
        pytest.param(["--until", "1m"], "have no end", id="an-end"),
    ],
)  # fmt: skip
def test_what_cannot_be_tailed_is_refused(argv, said):
    with serving() as (url, _):
        code, _, err = tail(url, *argv)
    assert (code, said in err) == (2, True), err


def test_live_and_follow_are_one_or_the_other(capsys):
    assert run(["logs", "tail", "--live", "-f"]) == 2
    assert "not allowed with" in capsys.readouterr().err


def test_on_aws_itself_boto3_puts_its_name_before_the_host(monkeypatch):
    """There the host without it answers no live tail."""
    sent = []

    class Stop(Exception):
        pass

    def stop(request, **_):
        sent.append(request.url)
        raise Stop

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    client = aws.logs_client(aws.Account("us-east-1", None, None))
    client.meta.events.register("before-send.cloudwatch-logs", stop)
    with pytest.raises(Stop):
        client.start_live_tail(logGroupIdentifiers=[ARN])
    assert sent == ["https://stream-logs.us-east-1.amazonaws.com/"]
    assert live_tail.MOST_GROUPS == 10
