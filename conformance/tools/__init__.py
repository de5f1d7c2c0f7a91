"""Checks of the interpreter's three-tool contract; they must not judge the protocol or the blocking."""
