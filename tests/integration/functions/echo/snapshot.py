"""The echo function with SnapStart's hooks, which leave their names in the environment."""

import os

from snapshot_restore_py import register_after_restore, register_before_snapshot

from handler import handler as handler

register_before_snapshot(lambda: os.environ.__setitem__("HOOKS", "before"))
register_after_restore(lambda: os.environ.__setitem__("HOOKS", os.environ["HOOKS"] + " after"))
