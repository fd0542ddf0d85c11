"""What the command line entries share."""

import logging
import sys
from collections.abc import Callable

from omegaconf import DictConfig

from vgr_rl.config import recipes, resolvers, search_path
from vgr_rl.errors import ConfigError

logger = logging.getLogger("vgr_rl")


def start_logging(level: int = logging.INFO) -> None:
    """Write messages to stderr, each once: huggingface_hub has a handler of its own."""
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    logging.getLogger("huggingface_hub").propagate = False


def register() -> None:
    """Make recipes, resolvers and verl's configuration known to Hydra."""
    recipes.register()
    resolvers.register()
    search_path.register()


def run_or_exit(run: Callable[[DictConfig], None], config: DictConfig) -> None:
    """Run an entry; a `ConfigError` is one message and exit code 2.

    Caught inside Hydra's function, since Hydra turns exceptions into a traceback and exit code 1.
    """
    try:
        run(config)
    except ConfigError as error:
        logger.error("error: %s", error)
        sys.exit(2)
