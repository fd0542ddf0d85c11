"""What a checkpoint consists of: written when everything else is there, and compared before it is loaded."""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vgr_rl.data.files import replacing
from vgr_rl.errors import ConfigError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_UNSEALED = "manifest.unsealed.json"
_FOLDER = re.compile(r"global_step_(\d+)")
_CHUNK_BYTES = 1 << 24


def write_manifest(folder: Path, sealed: bool = True) -> int:
    """Write `manifest.json` with size and SHA-256 of every file of a complete checkpoint; return the bytes of all.

    A checkpoint without it was interrupted while it was written, or before `seal` where the manifest is not sealed.
    """
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if name not in (MANIFEST, _UNSEALED)]
    sizes = [(folder / name).stat().st_size for name in names]
    files = {
        name: {"bytes": size, "sha256": digest}
        for name, size, digest in zip(names, sizes, _digests(folder, names), strict=True)
    }
    with replacing(folder / (MANIFEST if sealed else _UNSEALED)) as temporary:
        temporary.write_text(json.dumps({"files": files}, indent=1) + "\n")
    return sum(sizes)


def seal(folder: Path) -> None:
    """Let a checkpoint count from now on, if its manifest was not sealed yet."""
    if (folder / _UNSEALED).is_file():
        (folder / _UNSEALED).rename(folder / MANIFEST)


def fault_of(folder: Path) -> str | None:
    """Say why a checkpoint cannot be used, None for a sound one. Reads every file."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return f"has no {MANIFEST}: it was interrupted while it was written"
    try:
        files = json.loads(manifest.read_text())["files"]
        sizes = {name: int(entry["bytes"]) for name, entry in files.items()}
        digests = {name: str(entry["sha256"]) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read: {error!r}"
    for name, size in sizes.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            return f"{name} is missing" if found is None else f"{name} has {found} bytes of {size}"
    for name, digest in zip(digests, _digests(folder, list(digests)), strict=True):
        if digest != digests[name]:
            return f"{name} has other contents than were written"
    return None


def newest_sound(checkpoints: Path) -> Path | None:
    """Return the newest checkpoint that is complete and undamaged, and warn of those that are passed over.

    Raises:
        ConfigError: there are complete ones, but all of them are damaged.
    """
    damaged = []
    for folder in reversed(steps(checkpoints)):
        fault = fault_of(folder)
        if fault is None:
            return folder
        logger.warning("warning: checkpoint %s is not used: %s", folder, fault)
        if (folder / MANIFEST).is_file():
            damaged.append(folder.name)
    if damaged:
        raise ConfigError(
            f"every checkpoint in {checkpoints} is damaged ({', '.join(damaged)}): move that folder away to start "
            "anew, or set another run_dir"
        )
    return None


def steps(checkpoints: Path) -> list[Path]:
    """Return the folders `global_step_N` of a run, by N, complete or not."""
    found = {}
    for folder in checkpoints.iterdir() if checkpoints.is_dir() else ():
        if (name := _FOLDER.fullmatch(folder.name)) and folder.is_dir():
            found[int(name[1])] = folder
    return [found[step] for step in sorted(found)]


def complete(checkpoints: Path) -> list[Path]:
    """Return the checkpoints of a run that were written to their end, by number; damaged ones are among them."""
    return [folder for folder in steps(checkpoints) if (folder / MANIFEST).is_file()]


def prune(newest: Path, keep: int | None) -> None:
    """Remove what is older than the newest `keep` checkpoints up to this one, which is complete; None keeps all.

    One that is not complete is not counted. Later ones stay: a run that passed over a damaged one has not come to its
    number again.
    """
    if keep:
        kept = [folder for folder in complete(newest.parent) if step_of(folder) <= step_of(newest)][-keep:]
        for folder in steps(newest.parent):
            if step_of(folder) < step_of(newest) and folder not in kept:
                shutil.rmtree(folder)


def step_of(checkpoint: Path | None) -> int:
    """Return N of .../global_step_N, 0 for None."""
    found = _FOLDER.search(str(checkpoint))
    return int(found[1]) if found else 0


def _digests(folder: Path, names: list[str]) -> Iterator[str]:
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
        yield from threads.map(_sha256, [folder / name for name in names])


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
