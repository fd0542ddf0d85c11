"""verl's task runner in our process: registers our trainer and estimators before it starts."""

import sys
from typing import Any

import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1

_TaskRunner: Any = TaskRunnerV1.__ray_metadata__.modified_class


@ray.remote
class EvidenceTaskRunner(_TaskRunner):
    """The single controller: builds the trainer, the agent loops and runs the training loop."""

    def run(self, config: DictConfig) -> int:
        """Run to the end and return the last step.

        Raises:
            RuntimeError: our verl plug-in did not load (verl hides the reason).
        """
        if "vgr_rl.plugin" not in sys.modules:
            raise RuntimeError("the verl plug-in of vgr-rl did not load: reinstall with `bash scripts/install.sh`")
        import vgr_rl.training.trainer  # noqa: F401  registers the trainer mode and the estimator

        super().run(config)
        return int(self.trainer.global_steps)
