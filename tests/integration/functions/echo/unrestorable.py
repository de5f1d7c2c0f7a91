"""The echo function with a hook that fails when its snapshot is restored."""

import os

from snapshot_restore_py import register_after_restore

from handler import handler as handler

register_after_restore(lambda: os._exit(1))
