"""Data files that a configuration knows how to make (`data.make`)."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

logger = logging.getLogger(__name__)


def make_missing(make: Any, files: Sequence[str]) -> None:
    """Call `data.make` when files are missing and all of them lie in the folder that it writes (its `--out`).

    A file that was named by hand is never made: the checks that follow say that it is missing.
    """
    missing = [file for file in files if not Path(file).exists()]
    if not missing or not make:
        return
    arguments = list(make.arguments)
    folder = Path(arguments[arguments.index("--out") + 1])
    if any(Path(file).parent != folder for file in missing):
        return
    logger.info("data: %s missing, making it with %s", missing[0], make["_target_"])
    instantiate(make)
