"""Read what is appended to a file of JSON lines, whatever happens to the file meanwhile."""

import json
import os
from pathlib import Path
from typing import Any

_REMEMBERED = 256  # bytes before the offset: when they have changed, it is another file
_PIECE = 4 << 20  # bytes read in one call, or one line that is longer


class Tail:
    """Follows a file of JSON lines.

    Attributes:
        path: the file; it need not exist yet.
        needed: what every object has to hold.
        bad_lines: how many complete lines of the file were no such JSON objects; they are left out.
        behind: whether the last call left complete lines to read, as it takes some megabytes at most.
    """

    def __init__(self, path: Path, needed: frozenset[str] = frozenset()) -> None:
        self.path, self.needed = path, needed
        self.behind = False
        self._begin()

    def _begin(self) -> None:
        self.bad_lines = 0
        self._offset = self._inode = 0
        self._last = b""

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """Return the objects of the next complete lines, and whether they replace all before.

        They do when the file was cut, rotated or written anew; a file that is gone leaves everything as it was. A last
        line without its end is left for the next call.
        """
        self.behind = False
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return [], False
        with file:
            status = os.fstat(file.fileno())
            file.seek(self._offset - len(self._last))
            replaced = status.st_ino != self._inode or file.read(len(self._last)) != self._last
            fresh = replaced and self._inode != 0
            if replaced:
                self._begin()
                self._inode = status.st_ino
                file.seek(0)
            appended = b""
            while b"\n" not in appended and (piece := file.read(_PIECE)):
                appended += piece
        complete = appended[: appended.rfind(b"\n") + 1]
        self.behind = self._offset + len(appended) < status.st_size
        self._offset += len(complete)
        self._last = (self._last + complete)[-_REMEMBERED:]
        return self._objects(complete), fresh

    def _objects(self, lines: bytes) -> list[dict[str, Any]]:
        found = []
        for line in filter(None, lines.split(b"\n")):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict) and self.needed <= row.keys():
                found.append(row)
            else:
                self.bad_lines += 1
        return found
