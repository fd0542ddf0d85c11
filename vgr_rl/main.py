"""GRPO with evidence rewards: `python -m vgr_rl.main [recipe=NAME] [group=choice ...] [key=value ...]`."""

import hydra
from omegaconf import DictConfig

from vgr_rl.config import entry


@hydra.main(config_path="config", config_name="main", version_base="1.3")
def _main(config: DictConfig) -> None:
    from vgr_rl.training import launch, supervise

    supervised = config.supervise.restarts and not config.dry_run
    entry.run_or_exit(supervise.run if supervised else launch.run, config)


def main() -> None:
    """Run the command line entry; exit code 2 means that the configuration, the data or the machine does not fit."""
    entry.start_logging()
    entry.register()
    _main()


if __name__ == "__main__":
    main()
