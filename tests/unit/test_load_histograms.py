"""Given latencies, histograms are those of HdrHistogram, merge by adding, and miss a percentile by less than 1 %."""

import base64
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from load_rows import record, row

from load.histograms import MOST_US, counts_of, decode, encode, quantile_ms, read_log, write_log
from load.percentiles import quantile
from load.report import write_reports
from load.rows import Row, RowWriter, write_run

# new Histogram(1, 3_600_000_000L, 3), these recorded in microseconds, encodeIntoCompressedByteBuffer, base64:
# org.hdrhistogram:HdrHistogram 2.2.2, the reference implementation.
VALUES_MS = (0.5, 1, 1, 2.047, 2.048, 7.5, 123.456, 123.456, 99999)
BY_JAVA = "HISTFAAAADV4nJNpmSzMwMAgwgABzFCaEURcm7yEwf4DROA5O9NTdpbVAkxMi2WZXjqwXJ3JyAQA8QEKmg=="


def drawn(n: int, seed: int = 1) -> list[float]:
    """Warm answers around 50 ms and some cold ones around 900."""
    rng = np.random.default_rng(seed)
    warm, cold = rng.lognormal(np.log(50), 0.6, n), rng.lognormal(np.log(900), 0.2, n // 50)
    return [round(float(value), 3) for value in rng.permutation(np.concatenate([warm, cold]))]


def test_the_reference_implementation_writes_the_same() -> None:
    assert decode(BY_JAVA) == counts_of(VALUES_MS)
    mine, theirs = (zlib.decompress(base64.b64decode(text)[8:]) for text in (encode(counts_of(VALUES_MS)), BY_JAVA))
    assert mine == theirs


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="none"),
        pytest.param([0.0], id="zero"),
        pytest.param([MOST_US / 1000, MOST_US / 1000 + 1], id="an-hour-and-more"),
        pytest.param([1.0] * 100_000 + [1.002], id="a-large-count-and-a-single-zero-between"),
        pytest.param(drawn(3000), id="many"),
    ],
)
def test_what_is_encoded_is_decoded(values: list[float]) -> None:
    assert decode(encode(counts_of(values))) == counts_of(values)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.95, 0.99, 0.999])
def test_four_workers_merged_miss_no_percentile_of_the_raw_rows_by_one_percent(q: float) -> None:
    values = drawn(20_000)
    merged: Counter[int] = sum((counts_of(values[worker::4]) for worker in range(4)), Counter())
    assert merged == counts_of(values)
    assert quantile_ms(merged, q) == pytest.approx(quantile(values, q), rel=0.001)


def test_the_log_has_a_line_for_each_stage_of_all_workers(tmp_path: Path) -> None:
    values = drawn(400)
    rows = [row(i, latency_ms=ms, stage="stair@5/s" if i < 100 else "a, b") for i, ms in enumerate(values)]
    bad = [row(500, outcome="connect_error", stage="a, b"), row(501, outcome="in_flight", latency_ms=9e3, stage="a, b")]
    for worker in (0, 1):
        writer = RowWriter(tmp_path / f"requests-w{worker}.jsonl")
        for one in [*rows, *bad][worker::2]:
            writer.write(one)
        writer.close()
    write_run(tmp_path / "run.json", record(planned=402))
    write_reports(tmp_path)
    found = read_log(tmp_path / "histograms.hlog")
    assert set(found) == {"stair@5/s", "a__b"}
    assert found["stair@5/s"] == counts_of(values[:100])
    assert found["a__b"] == counts_of([*values[100:], 9e3]), "an answer that never came took at least so long"
    first = next(line for line in (tmp_path / "histograms.hlog").read_text().splitlines() if line.startswith("Tag="))
    assert len(first.split(",")) == 5


def test_lines_of_one_tag_are_merged(tmp_path: Path) -> None:
    rows: list[Row] = [row(i, latency_ms=ms) for i, ms in enumerate(drawn(50))]
    write_log(tmp_path / "one", rows, 1.0)
    (tmp_path / "two").write_text(2 * (tmp_path / "one").read_text())
    once, twice = (read_log(tmp_path / name) for name in ("one", "two"))
    assert {tag: counts.total() for tag, counts in twice.items()} == {tag: 2 * c.total() for tag, c in once.items()}


@pytest.mark.parametrize("text", [BY_JAVA.replace("HISTF", "HISTE"), encode(Counter())[:8] + "AAAA"])
def test_another_format_is_refused(text: str) -> None:
    with pytest.raises((ValueError, zlib.error)):
        decode(text)


def test_nothing_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="empty"):
        quantile_ms(Counter(), 0.5)
