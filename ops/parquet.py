"""Writes log events as Parquet, for those who have pyarrow; it is an extra of the package and not in its own venv.

pandas imports pyarrow wherever it finds it. In the venv that the local stack serves from, the interpreter's templates
would import it too, and be slower and larger than what is deployed.
"""

from collections.abc import Iterable
from importlib import import_module
from itertools import batched
from pathlib import Path
from typing import Any, Final

from ops.failures import UsageError
from ops.logs import LogEvent

ROWS_AT_ONCE: Final = 50_000


def require() -> Any:
    """pyarrow. Raises UsageError where it is not installed, before anything was pulled for nothing."""
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError:
        raise UsageError(
            "Parquet takes pyarrow, which is not installed: pip install pyarrow, in a venv that no local stack serves "
            "from; or read the events.jsonl of a run with what you have."
        ) from None


def write(events: Iterable[LogEvent], path: Path) -> None:
    """`time` and `ingestion_time` as timestamps in UTC, ms; group and stream as dictionaries; the rest as text."""
    arrow = require()
    name = arrow.dictionary(arrow.int32(), arrow.string())
    at = arrow.timestamp("ms", tz="UTC")
    columns = {"time": at, "ingestion_time": at, "group": name, "stream": name}
    schema = arrow.schema({**columns, "id": arrow.string(), "message": arrow.string()})
    with arrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in batched(events, ROWS_AT_ONCE):
            values = zip(*rows, strict=True)
            made = [arrow.array(value, field.type) for value, field in zip(values, schema, strict=True)]
            writer.write_batch(arrow.record_batch(made, schema=schema))
