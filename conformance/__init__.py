"""Judges any MCP endpoint over the wire: the protocol, the interpreter's tools, and what its blocking really stops.

Knows an endpoint URL and nothing else: it must not import the function, the local stack or an MCP SDK.

    wire, messages, schemas     bytes, JSON-RPC of each revision, what results must look like; client: for one check
    target, interpreter, stdio  what is judged, how Python is run on it, a stdio server behind a URL
    catalogue, finding          the requirements, and how a check says that one is not kept
    protocol/ tools/ security/  the checks
    preflight, plugin           whether there is anything to judge; the checks under pytest
    recorder, records           what a run leaves; report/: one writer per format; baseline: failures that are accepted
"""

from pathlib import Path

# How a person calls this room: from the repository, or by the command that `pip install` made.
COMMAND = "lci-conformance" if Path(__file__).parents[1].name == "lambda_code_interpreter" else "python -m conformance"
