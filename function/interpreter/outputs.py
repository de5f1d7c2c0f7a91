"""Turns what the code left behind (a value, open figures) into bounded text, tables and images. Runs inside the child.

The template process imports this, so the standard library only; libraries are used when the code has imported them.
"""

from __future__ import annotations

import base64
import io
import struct
import sys
from collections.abc import Callable
from typing import Any

MAX_TEXT_BYTES = 256 * 1024  # of the result text
MAX_FIGURES = 10
MAX_RICH_BYTES = 3 * 1024 * 1024  # of all rich outputs: Lambda answers at most 6 MB, and base64 makes three bytes four
TABLE_ROWS, TABLE_COLUMNS = 60, 20
MIN_DPI = 20

# What IPython's display protocol asks objects for (IPython documentation, "Rich output"), richest first.
_REPRESENTATIONS = (
    ("image/png", "_repr_png_"),
    ("image/jpeg", "_repr_jpeg_"),
    ("image/svg+xml", "_repr_svg_"),
    ("text/html", "_repr_html_"),
)


def cut(text: str, limit: int) -> tuple[str, bool]:
    """`text` cut to at most `limit` bytes of UTF-8, and whether anything was cut."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit:
        # Lone surrogates cannot travel in JSON; what is left is exactly what UTF-8 can carry.
        return raw.decode("utf-8"), False
    return raw[:limit].decode("utf-8", "ignore"), True


def describe(value: Any) -> str:
    """Text of a value. A hostile or broken `__str__` costs its own text, not the result."""
    try:
        if _is_frame(value):
            return str(value.to_string(max_rows=TABLE_ROWS, max_cols=TABLE_COLUMNS))
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__} object whose __str__ raised {type(error).__name__}>"


def rich_forms(value: Any) -> list[dict[str, Any]]:
    """The richest form of a last value besides its text: a table as HTML, an image; nothing where it has none."""
    if _is_frame(value):
        html = value.to_html(max_rows=TABLE_ROWS, max_cols=TABLE_COLUMNS, border=0)
        return [_output("text/html", html.encode())]
    pyplot = sys.modules.get("matplotlib.pyplot")
    if hasattr(value, "savefig") and (pyplot is None or getattr(value, "number", None) not in pyplot.get_fignums()):
        return [_output("image/png", save(value.savefig, MAX_RICH_BYTES))]  # a figure that pyplot does not keep
    for mime_type, name in _REPRESENTATIONS:
        method = getattr(type(value), name, None)
        if method is None:
            continue
        try:
            form = method(value)
        except Exception:
            continue
        data = form.encode() if isinstance(form, str) else form
        if isinstance(data, bytes) and 0 < len(data) <= MAX_RICH_BYTES:
            return [_output(mime_type, data)]
    return []


def _is_frame(value: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def figures(budget: int) -> tuple[list[dict[str, Any]], bool]:
    """Open matplotlib figures as PNG within `budget` bytes, oldest first, and whether any had to be left out.

    A figure that is larger than its share is drawn again with fewer dots, so that all are seen rather than few.
    """
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return [], False
    numbers = pyplot.get_fignums()
    shown = numbers[:MAX_FIGURES]
    images: list[dict[str, Any]] = []
    for position, number in enumerate(shown):
        data = save(pyplot.figure(number).savefig, budget // (len(shown) - position))
        if len(data) > budget:
            return images, True
        budget -= len(data)
        images.append(_output("image/png", data))
    return images, len(numbers) > MAX_FIGURES


def save(savefig: Callable[..., Any], budget: int) -> bytes:
    """A figure as PNG, with as many dots per inch as `budget` bytes allow, down to MIN_DPI."""
    data, dpi = _draw(savefig), 100.0
    while len(data) > budget and dpi > MIN_DPI:
        # Bytes grow with the square of the dots; a little less than the root says, so that this seldom repeats.
        dpi = max(MIN_DPI, dpi * 0.9 * (budget / len(data)) ** 0.5)
        data = _draw(savefig, dpi=dpi)
    return data


def _draw(savefig: Callable[..., Any], **options: float) -> bytes:
    buffer = io.BytesIO()
    savefig(buffer, format="png", **options)
    return buffer.getvalue()


def _output(mime_type: str, data: bytes) -> dict[str, Any]:
    width, height = png_size(data) if mime_type == "image/png" else (None, None)
    return {"mime_type": mime_type, "data": base64.b64encode(data).decode("ascii"), "width": width, "height": height}


def png_size(data: bytes) -> tuple[int | None, int | None]:
    """Width and height in pixels from a PNG's IHDR chunk (PNG specification, 3rd edition, section 11.2.1)."""
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None, None
    width, height = struct.unpack(">II", data[16:24])
    return width, height
