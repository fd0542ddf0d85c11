"""verl's task runner: registers our trainer and estimator, checks the configuration, trains."""

import sys
from typing import Any

from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from vgr_rl.errors import ConfigError
from vgr_rl.segment.server import start_servers
from vgr_rl.training.reservation import group, other_run
from vgr_rl.training.segmenter_preflight import servers_together

_TaskRunner: Any = TaskRunnerV1.__ray_metadata__.modified_class


class EvidenceTaskRunner(_TaskRunner):
    """The single controller: builds the trainer, the agent loops and runs the training loop."""

    def run(self, config: DictConfig) -> None:
        """Run to the end.

        Raises:
            RuntimeError: our verl plug-in did not load (verl hides the reason).
            ConfigError: another run has started on this cluster a moment ago.
        """
        if "vgr_rl.plugin" not in sys.modules:
            raise RuntimeError("the verl plug-in of vgr-rl did not load: reinstall with `bash scripts/install.sh`")
        import vgr_rl.training.trainer  # noqa: F401  registers the trainer mode and the estimator

        segmenter = config.segmenter
        if segmenter.model is not None:
            sizes = {name: segmenter[name] for name in ("servers", "gpus", "queue", "batch", "images")}
            together = servers_together(segmenter.gpus)
            groups = [group("segmenter", index // together) for index in range(segmenter.servers)]
            self._segmenters = start_servers(segmenter.model, **sizes, groups=groups)
        validate_config(config, need_reference_policy(config), need_critic(config))
        if rival := other_run():
            raise ConfigError(rival[0])
        super().run(config)
