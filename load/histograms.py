"""Latency by stage as HDR histograms with three digits, in HdrHistogram's log format, for the tools that read it.

Beside the raw rows, never instead of them: every figure of ours is made from rows. The one Python package for it wants
setuptools and pbr at run time, and a .pth of theirs in every interpreter that starts; the two formats are short:
counts by index, as HdrHistogram's AbstractHistogram lays them out, and "V2" of its `encodeIntoByteBuffer` (zigzag
LEB128 with runs of zeros as their negative length, deflated), one base64 line for each interval of a log 1.2.
"""

import base64
import math
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from load.rows import CENSORED, Row

FILE: Final = "histograms.hlog"
MOST_US: Final = 3_600_000_000
"""An hour, the largest value kept apart; more counts as so much."""
_DIGITS: Final = 3
_HALF_BITS: Final = 10  # 2,048 values of one step, half of them again for each doubling: three digits
_HALF: Final = 1 << _HALF_BITS
_COOKIE: Final = 0x1C849303 | 0x10
_COMPRESSED_COOKIE: Final = 0x1C849304 | 0x10
_HEADER: Final = struct.Struct(">iiiiqqd")

type Counts = Counter[int]
"""How many values have each index; those of two workers, stages or runs are merged with `+`."""


def counts_of(latencies_ms: Iterable[float]) -> Counts:
    """Counted in microseconds."""
    return Counter(_index(min(MOST_US, max(0, round(ms * 1000)))) for ms in latencies_ms)


def quantile_ms(counts: Counts, q: float) -> float:
    """The smallest latency, ms, that at least the share `q` does not exceed, within three digits. Raises ValueError
    for an empty histogram."""
    rank, passed = max(1, math.ceil(q * counts.total() - 1e-9)), 0
    for index in sorted(counts):
        passed += counts[index]
        if passed >= rank:
            low, width = _span(index)
            return (low + (width - 1) / 2) / 1000
    raise ValueError("an empty histogram has no quantiles")


def write_log(path: Path, rows: Sequence[Row], anchor_unix_s: float) -> None:
    """One line for each stage, all workers together; `Tag` is the stage. The lines of a run add up to all of it."""
    by_stage: dict[str, list[Row]] = {}
    for row in rows:
        if row.latency_ms is not None and (row.outcome == "ok" or row.outcome in CENSORED):
            by_stage.setdefault(row.stage, []).append(row)
    lines = [
        "#[Latency from the intended time in microseconds; the third column is the largest in milliseconds]",
        "#[Histogram log format version 1.2]",
        f"#[BaseTime: {anchor_unix_s:.3f} (seconds since epoch)]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    for stage, chosen in by_stage.items():
        counts = counts_of(row.latency_ms or 0.0 for row in chosen)
        start_s = min(row.intended_s for row in chosen)
        length_s = max(row.intended_s for row in chosen) - start_s
        most_ms = sum(_span(max(counts)))
        lines.append(f"Tag={_tag(stage)},{start_s:.3f},{length_s:.3f},{most_ms / 1000:.3f},{encode(counts)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_log(path: Path) -> dict[str, Counts]:
    """The histograms of a log by their tag, those of one tag merged."""
    found: dict[str, Counts] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("Tag="):
            tag, *_, encoded = line.removeprefix("Tag=").split(",")
            found[tag] = found.get(tag, Counter()) + decode(encoded)
    return found


def encode(counts: Counts) -> str:
    """A histogram as HdrHistogram's `encodeIntoCompressedByteBuffer` makes it, in base64."""
    payload = b"".join(map(_zigzag, _with_runs(counts)))
    plain = _HEADER.pack(_COOKIE, len(payload), 0, _DIGITS, 1, MOST_US, 1.0) + payload
    packed = zlib.compress(plain)
    return base64.b64encode(struct.pack(">ii", _COMPRESSED_COOKIE, len(packed)) + packed).decode("ascii")


def decode(encoded: str) -> Counts:
    """A histogram of `encode`, or of another writer with the same digits. Raises ValueError for any other."""
    raw = base64.b64decode(encoded)
    if struct.unpack_from(">i", raw)[0] != _COMPRESSED_COOKIE:
        raise ValueError("not a compressed histogram of HdrHistogram's second version")
    plain = zlib.decompress(raw[8:])
    cookie, length, _, digits, least, *_ = _HEADER.unpack_from(plain)
    if (cookie, digits, least) != (_COOKIE, _DIGITS, 1):
        raise ValueError(f"a histogram of {digits} digits from {least} on; {_DIGITS} from 1 on are read here")
    counts: Counts = Counter()
    index = 0
    for number in _numbers(plain[_HEADER.size : _HEADER.size + length]):
        if number > 0:
            counts[index] = number
        index += -number if number < 0 else 1
    return counts


def _index(value: int) -> int:
    bucket = max(0, value.bit_length() - _HALF_BITS - 1)
    return (bucket << _HALF_BITS) + (value >> bucket)


def _span(index: int) -> tuple[int, int]:
    """The lowest value of an index, and how many values share it."""
    bucket = max(0, (index >> _HALF_BITS) - 1)
    return (index - (bucket << _HALF_BITS)) << bucket, 1 << bucket


def _with_runs(counts: Counts) -> Iterator[int]:
    """The counts from index 0 on; a run of zeros is one negative number."""
    following = 0
    for index in sorted(counts):
        if index > following:
            zeros = index - following
            yield -zeros if zeros > 1 else 0
        yield counts[index]
        following = index + 1


def _zigzag(number: int) -> bytes:
    """LEB128 of the number with its sign in the lowest bit; of at most eight bytes, so below 2^55."""
    left = (number << 1) ^ (number >> 63)
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def _numbers(payload: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in payload:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield (value >> 1) ^ -(value & 1)
            value = shift = 0


def _tag(stage: str) -> str:
    """A tag holds no comma, space or line break (HistogramLogWriter)."""
    return "".join("_" if character in ", \r\n\t" else character for character in stage)
