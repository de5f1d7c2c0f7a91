"""Judges any MCP endpoint over the wire: the protocol, the interpreter's tools, and what its blocking really stops.

Knows an endpoint URL and nothing else: it must not import the function, the local stack or an MCP SDK.
"""

from pathlib import Path

# How a person calls this room: from the repository, or by the command that `pip install` made.
COMMAND = "lci-conformance" if Path(__file__).parents[1].name == "lambda_code_interpreter" else "python -m conformance"
