"""A row is written as the JSON of its fields, whatever an endpoint says, and read again as it was."""

import dataclasses
import json
from pathlib import Path

import pytest
from load_rows import row

from load.rows import Row, RowWriter, read_rows, row_line

FULL = {
    "lambda_request_id": "8b2e64ac-8a04-4d9d-b14c-6b0efcf0f2a1",
    "server_timing": {"init": 812.3, 'a "name"': 0.0, "exec": 12.4},
    "bytes": 231,
}


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(row(7, latency_ms=12.345, **FULL), id="full"),
        pytest.param(row(8, latency_ms=None, status=None, cold=None, invocation=None, outcome="dropped"), id="unsent"),
        pytest.param(row(9, cold=True, server_timing={}), id="cold-without-timings"),
        pytest.param(row(1, outcome="wrong_answer", error='"计算"\\ \n\t\x00\x7f\u2028 é'), id="text-of-all-kinds"),
        pytest.param(row(2, outcome="rpc_error", error="half of a pair: \ud83d"), id="a-lone-surrogate"),
        pytest.param(row(3, stage='a "stage", of a kind', environment_id='"'), id="quotes"),
        pytest.param(row(4, latency_ms=1e-7, intended_s=86399.999999), id="small-and-large"),
    ],
)
def test_the_line_is_the_json_of_the_fields(one: Row, tmp_path: Path) -> None:
    assert json.loads(row_line(one)) == dataclasses.asdict(one)
    assert list(json.loads(row_line(one))) == [field.name for field in dataclasses.fields(Row)]
    writer = RowWriter(tmp_path / "requests.jsonl")
    writer.write(one)
    writer.write(dataclasses.replace(one, index=one.index + 1))
    writer.close()
    assert read_rows(tmp_path)[0] == one
    assert len((tmp_path / "requests.jsonl").read_bytes().split(b"\n")) == 3
