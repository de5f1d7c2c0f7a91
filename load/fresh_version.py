"""Environments that nobody has called: a version published for the purpose, behind a private alias, put back after.

Lambda starts every environment of a new version cold. Of $LATEST only the description changes, which publishing needs
to see a change, and the memory size where sizes are asked for; versions and aliases of others are left alone. What is
to be put back is on disk before anything is changed. It calls no function.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from load import COMMAND
from load.aws import AwsRefused, told

ALIAS: Final = "load-coldstart"
JOURNAL: Final = "restore.json"


class Journal(BaseModel):
    """restore.json, schema load-restore/1: what the function was like, and what of ours is still there."""

    model_config = ConfigDict(extra="forbid")

    schema_: Literal["load-restore/1"] = Field(default="load-restore/1", alias="schema")
    function: str
    description: str
    memory_mb: int
    per_tenant: bool = False
    marker: str = Field(default="", description="The description that stands while the run does; empty before.")
    alias: bool = False
    version: str = ""

    def write(self, path: Path) -> None:
        path.write_text(self.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")

    @property
    def clean(self) -> bool:
        return not (self.marker or self.alias or self.version)


def read_function(client: Any, function: str) -> Journal:
    """What there is to put back later. Raises AwsRefused, also when another run has its alias there."""
    with told(f"reading {function}"):
        found = client.get_function_configuration(FunctionName=function)
        aliases = [
            alias["Name"]
            for page in client.get_paginator("list_aliases").paginate(FunctionName=function)
            for alias in page["Aliases"]
        ]
    if ALIAS in aliases:
        raise AwsRefused(
            f"{function} has an alias {ALIAS} already: another run is under way, or one was killed; put that one back "
            f"with `{COMMAND} coldstart --restore DIR`, or delete the alias"
        )
    return Journal(
        function=function,
        description=found.get("Description", ""),
        memory_mb=found["MemorySize"],
        per_tenant=found.get("TenancyConfig", {}).get("TenantIsolationMode") == "PER_TENANT",
    )


@contextmanager
def fresh_version(client: Any, journal: Journal, path: Path, marker: str, memory_mb: int | None) -> Iterator[str]:
    """A version that has never run, behind the alias ALIAS, which is yielded; both are gone afterwards.

    `marker` becomes the description, `memory_mb` the size (None: as it is). The caller restores $LATEST at the end of
    all versions. Raises AwsRefused.
    """
    name = journal.function
    with told(f"publishing a version of {name}"):
        client.get_waiter("function_updated_v2").wait(FunctionName=name)
        before = _versions(client, name)
        journal.marker = marker
        journal.write(path)
        change: dict[str, Any] = {} if memory_mb is None else {"MemorySize": memory_mb}
        client.update_function_configuration(FunctionName=name, Description=marker, **change)
        client.get_waiter("function_updated_v2").wait(FunctionName=name)
        with uninterrupted():
            published = client.publish_version(FunctionName=name, Description=marker)["Version"]
            if published in before:
                raise AwsRefused(f"{name} gave version {published} again instead of a new one; its calls would be warm")
            journal.version = published
            journal.write(path)
        client.get_waiter("published_version_active").wait(FunctionName=name, Qualifier=published)
        with uninterrupted():
            client.create_alias(FunctionName=name, Name=ALIAS, FunctionVersion=published, Description=marker)
            journal.alias = True
            journal.write(path)
    try:
        yield ALIAS
    finally:
        with uninterrupted():
            _remove(client, journal, path)


def restore(client: Any, journal: Journal, path: Path) -> None:
    """Takes away what is left of ours and gives $LATEST its description and memory back. Raises AwsRefused.

    A description that is not our marker was changed by somebody else meanwhile: then $LATEST is left as it is.
    """
    with uninterrupted():
        try:
            _remove(client, journal, path)
            if not journal.marker:
                return
            with told(f"putting {journal.function} back"):
                client.get_waiter("function_updated_v2").wait(FunctionName=journal.function)
                now = client.get_function_configuration(FunctionName=journal.function)
                if now.get("Description", "") == journal.marker:
                    change: dict[str, Any] = {"Description": journal.description}
                    if now["MemorySize"] != journal.memory_mb:
                        change["MemorySize"] = journal.memory_mb
                    client.update_function_configuration(FunctionName=journal.function, **change)
                    client.get_waiter("function_updated_v2").wait(FunctionName=journal.function)
                elif now.get("Description", "") != journal.description:
                    said = f"the description of {journal.function} was changed by somebody else; it is left as it is"
                    print(f"load: {said}", file=sys.stderr)
        except AwsRefused as error:
            raise AwsRefused(f"{error}; try `{COMMAND} coldstart --restore {path.parent}` again") from error
        journal.marker = ""
        journal.write(path)


def _remove(client: Any, journal: Journal, path: Path) -> None:
    """The alias first: a version that an alias stands for cannot be deleted. What is gone already is well."""
    with told(f"removing alias {ALIAS} and version {journal.version} of {journal.function}"):
        missing = client.exceptions.ResourceNotFoundException
        if journal.alias:
            with contextlib.suppress(missing):
                client.delete_alias(FunctionName=journal.function, Name=ALIAS)
            journal.alias = False
            journal.write(path)
        if journal.version:
            with contextlib.suppress(missing):
                client.delete_function(FunctionName=journal.function, Qualifier=journal.version)
            journal.version = ""
            journal.write(path)


def _versions(client: Any, function: str) -> set[str]:
    pages = client.get_paginator("list_versions_by_function").paginate(FunctionName=function)
    return {version["Version"] for page in pages for version in page["Versions"]}


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keeps Ctrl-C and SIGTERM from cutting the putting-back short; they count again afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    for signum in before:
        signal.signal(signum, lambda number, _: held.append(number))
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        if held:
            signal.raise_signal(held[0])
