"""Writes matplotlib's font list beside the fonts it ships with, so that no cold start has to build one (350 ms).

Only matplotlib's own fonts: those of the building machine are not on Lambda. Run with the Python the layer is for.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib

with tempfile.TemporaryDirectory() as cache, mock.patch.object(matplotlib, "get_cachedir", return_value=cache):
    # The module builds a list on import, with the fonts of this machine; that one goes with its directory.
    from matplotlib import font_manager

find = font_manager.findSystemFonts


def find_shipped(paths: Any = None, fontext: Any = "ttf") -> list[str]:
    """Fonts of the directories that were named; none when the system is asked."""
    return find(paths, fontext) if paths is not None else []


with mock.patch.object(font_manager, "findSystemFonts", find_shipped):
    fonts = font_manager.FontManager()
name = f"fontlist-v{font_manager.FontManager.__version__}.json"
font_manager.json_dump(fonts, Path(matplotlib.get_data_path()) / name)
