"""Shared-memory segments that a run leaves behind in /dev/shm, and their removal."""

import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

_ROOT = Path("/dev/shm")


class SegmentGuard:
    """Remembers the segments that exist now; `remove_new` removes those of this user that nobody has open since."""

    def __init__(self) -> None:
        self._before = _own_segments()

    def remove_new(self) -> list[str]:
        """Remove segments that are new and not mapped by any live process; return their names."""
        new = _own_segments() - self._before
        leftover = sorted(new - _mapped()) if new else []
        for name in leftover:
            (_ROOT / name).unlink(missing_ok=True)
        if leftover:
            logger.debug("removed %d shared-memory segments left behind: %s", len(leftover), ", ".join(leftover))
        return leftover


def _own_segments() -> set[str]:
    if not _ROOT.is_dir():
        return set()
    segments = set()
    for path in _ROOT.iterdir():
        try:
            if path.is_file() and path.stat().st_uid == os.getuid():
                segments.add(path.name)
        except FileNotFoundError:
            continue
    return segments


def _mapped() -> set[str]:
    """Return the names under /dev/shm that a process of this user has mapped or open."""
    names: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "maps").read_text()
            links = [os.readlink(link) for link in (process / "fd").iterdir()]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        prefix = f"{_ROOT}/"
        for place in [line.split(maxsplit=5)[-1] for line in text.splitlines() if prefix in line] + links:
            if place.startswith(prefix):
                names.add(place[len(prefix) :].split("/")[0])
    return names
