"""The console page of the local stack: it tries the interpreter from a browser, and is served from here alone.

What the code under it writes is hostile, so the page's policy lets one script run, its own, and load nothing.
"""

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

from aiohttp import web

_SOURCE = Path(__file__).with_name("console.html")
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


class Console:
    """The page for one stack. `facts` is what the page knows of it: endpoint (a path), console, function_name,
    memory_mb, timeout_s, and whether it wants an api_key; never the key."""

    def __init__(self, facts: dict[str, Any]) -> None:
        source = _SOURCE.read_text(encoding="utf-8")
        self._body = source.replace("{{stack}}", html.escape(json.dumps(facts)), 1).encode()
        self._headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": policy(source),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
            "Vary": "Accept",
        }

    def page(self) -> web.Response:
        return web.Response(body=self._body, headers=self._headers)


def wants_page(request: web.BaseRequest) -> bool:
    """Whether a browser asks for the root; everything else gets the ready line there."""
    return request.method == "GET" and request.path == "/" and "text/html" in request.headers.get("Accept", "")


def policy(source: str) -> str:
    """The Content-Security-Policy of the page. Frames inherit it; their tables bring styles of their own."""
    hashes = (hashlib.sha256(script.encode()).digest() for script in _SCRIPT.findall(source))
    scripts = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
        "frame-src 'none'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
    )
