"""Cold start by supervised fine-tuning: `python -m vgr_rl.sft [recipe=NAME] [hardware=NAME] [key=value ...]`."""

import logging

import hydra
from omegaconf import DictConfig

from vgr_rl.config import entry

logger = logging.getLogger("vgr_rl.sft")


@hydra.main(config_path="config/sft", config_name="sft", version_base="1.3")
def _main(config: DictConfig) -> None:
    from vgr_rl.training import sft_launch

    entry.run_or_exit(sft_launch.run, config)


def main() -> None:
    """Run the command line entry; exit code 2 means that the configuration, the data or the machine does not fit."""
    entry.start_logging(logging.WARNING)
    logging.getLogger("vgr_rl").setLevel(logging.INFO)
    entry.register()
    _main()


if __name__ == "__main__":
    main()
