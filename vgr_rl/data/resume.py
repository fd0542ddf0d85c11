"""Converted rows on disk, so that a conversion that was killed goes on where it was."""

import glob
import hashlib
import inspect
import os
import pickle
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import vgr_rl
from vgr_rl.data.files import replacing

_PACKAGE = Path(vgr_rl.__file__).parent
_READ_BY = ("data", "grounding")  # packages whose code decides what becomes of a row
_SOURCES = {".json", ".jsonl", ".parquet", ".tfrecord", ".txt"}


class ChunkStore:
    """What became of the chunks of a source that are converted, by number, in a hidden folder beside the output.

    The folder's name depends on the command's options, the converter, our code, and names, sizes and times of the
    source's files: after a change of any of them everything is converted anew. Images are taken to be the same.

    Args:
        folder: readable by its owner alone, since the files are pickles; see `beside`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def beside(cls, out: Path, source: Path, make: Any, options: Mapping[str, str]) -> "ChunkStore":
        """Open the store of one conversion, and remove what else was left by earlier ones that were to write `out`.

        Raises:
            ValueError: if the folder is not ours alone.
        """
        text = repr((sorted(options.items()), _described(make), [_stamp(path) for path in _files(source)], _code()))
        folder = out.parent / f".{out.name}.{hashlib.sha256(text.encode()).hexdigest()[:16]}.partial"
        for other in set(out.parent.glob(f".{glob.escape(out.name)}.*.partial")) - {folder}:
            shutil.rmtree(other)
        for begun in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):
            begun.unlink()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise ValueError(f"{folder}: rows are read back from it, but others than you may write there; remove it")
        return cls(folder)

    def __len__(self) -> int:
        return sum(path.suffix == ".pickle" for path in self.folder.iterdir())

    def read(self, number: int) -> Any:
        """Return what was written for a chunk, or None."""
        path = self._path(number)
        return pickle.loads(path.read_bytes()) if path.exists() else None

    def write(self, number: int, outcomes: Any) -> None:
        """Keep what became of a chunk; it is there as a whole or not at all."""
        with replacing(self._path(number)) as temporary:
            temporary.write_bytes(pickle.dumps(outcomes, pickle.HIGHEST_PROTOCOL))

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:07}.pickle"


def _described(value: Any) -> str:
    if isinstance(value, partial):
        assert not value.keywords, "settings are positional"
        return repr([_described(value.func), *map(_described, value.args)])
    return f"{value.__module__}.{value.__qualname__}" if inspect.isfunction(value) else repr(value)


def _files(source: Path) -> Iterator[Path]:
    """Yield the files of a source, in order: one, those of a folder, or those of a pattern; of a hub id none."""
    if source.is_dir():
        yield from sorted(path for path in source.rglob("*") if path.suffix in _SOURCES)
    else:
        yield from sorted(map(Path, glob.glob(str(source))))


def _stamp(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return str(path), found.st_size, found.st_mtime_ns


def _code() -> str:
    code = hashlib.sha256()
    for path in sorted(path for name in _READ_BY for path in (_PACKAGE / name).rglob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()
