"""Checks of the MCP revisions, one named function each, tied to catalogue ids; they know no particular server."""
