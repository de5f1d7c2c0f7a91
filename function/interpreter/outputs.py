"""Turns what the code left behind (a value, open figures) into bounded text and images. Runs inside the child.

The template process imports this, so the standard library only; libraries are used when the code has imported them.
"""

from __future__ import annotations

import base64
import struct
import sys
from typing import Any

MAX_TEXT_BYTES = 256 * 1024  # of the result text
MAX_FIGURES = 10
MAX_IMAGE_BYTES = 3 * 1024 * 1024  # of all images: Lambda answers at most 6 MB, and base64 makes three bytes four


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
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__} object whose __str__ raised {type(error).__name__}>"


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels from a PNG's IHDR chunk (PNG specification, 3rd edition, section 11.2.1)."""
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def figures() -> tuple[list[dict[str, Any]], bool]:
    """Open matplotlib figures as PNG, oldest first, and whether any had to be left out."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return [], False
    import io

    images: list[dict[str, Any]] = []
    total = 0
    numbers = pyplot.get_fignums()
    for number in numbers[:MAX_FIGURES]:
        buffer = io.BytesIO()
        pyplot.figure(number).savefig(buffer, format="png")
        data = buffer.getvalue()
        total += len(data)
        if total > MAX_IMAGE_BYTES:
            return images, True
        width, height = png_size(data)
        images.append(
            {
                "mime_type": "image/png",
                "data": base64.b64encode(data).decode("ascii"),
                "width": width,
                "height": height,
            }
        )
    return images, len(numbers) > MAX_FIGURES
