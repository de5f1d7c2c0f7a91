"""Open-loop load and cold-start tests of an MCP endpoint. Knows a URL and nothing of what serves it."""

from pathlib import Path

# How a person calls this room: from the repository, or by the command that `pip install` made.
COMMAND = "lci-load" if Path(__file__).parents[1].name == "lambda_code_interpreter" else "python -m load"
