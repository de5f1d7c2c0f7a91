"""Makes the import of the handler cheaper, before anything else is imported: init time is a cold caller's waiting time.

The levers, each measured (`make bench`): bytecode is shipped; Starlette serves without FastAPI; the MCP SDK's package
files, which import its client and its high-level server, are left out, and so is uvicorn, which sse-starlette imports
where it finds it; pydantic builds validators, of models and of unions, on first use and looks for no plugins. Only the
handler does this.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import types


def trim() -> None:
    """Put the levers in place. Must run before pydantic and the SDK are imported."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    import pydantic

    # hundreds of protocol models and their unions, of which a call uses a few
    pydantic.BaseModel.model_config = pydantic.ConfigDict(defer_build=True)
    pydantic.TypeAdapter._defer_build = property(lambda _adapter: True)  # type: ignore[assignment,method-assign]
    sys.modules.setdefault("uvicorn", None)  # type: ignore[arg-type]  # "not importable", as sse-starlette allows
    for name in ("mcp", "mcp.server"):
        _without_its_init(name)
    rebuild = vars(pydantic.BaseModel)["model_rebuild"]
    pydantic.BaseModel.model_rebuild = _later  # type: ignore[method-assign,assignment]
    try:
        import mcp_types  # noqa: F401
    finally:
        pydantic.BaseModel.model_rebuild = rebuild  # type: ignore[method-assign]


@classmethod  # type: ignore[misc]
def _later(_model: type, **_options: object) -> None:
    """In place of a rebuild whose forward references can all be found when the model is first used."""


def _without_its_init(name: str) -> None:
    """Enter package `name` as if its `__init__` were empty: its modules are found and import what they need."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None or name in sys.modules:
        return
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    package.__spec__.submodule_search_locations = package.__path__
    sys.modules[name] = package
