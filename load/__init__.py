"""Open-loop load and cold-start tests of an MCP endpoint. Knows a URL and nothing of what serves it."""
