"""The machines that a plan is for: this one, or those of `simulate`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from omegaconf import DictConfig

from vgr_rl.errors import ConfigError
from vgr_rl.training.preflight import check_accelerators

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Cluster:
    """What there is to run on.

    Attributes:
        nodes: machines of a simulated cluster; None for what is really there.
        gpus_per_node: GPUs of each.
        gpu_bytes: memory of a GPU; None when unknown.
        host_bytes: memory of a node; None when unknown.
    """

    nodes: int | None
    gpus_per_node: int
    gpu_bytes: int | None
    host_bytes: int | None

    @classmethod
    def of(cls, config: DictConfig, on_ray: bool = True) -> "Cluster":
        """Return the simulated cluster, or this machine; nothing is known of a Ray cluster (RAY_ADDRESS).

        Args:
            config: of a run; `simulate` and `dry_run` are read.
            on_ray: whether it runs on the Ray cluster, if there is one.

        Raises:
            ConfigError: a simulated cluster for more than a plan, or without its size.
        """
        given = config.simulate
        if any(value is not None for value in given.values()):
            return cls._simulated(config)
        if on_ray and os.environ.get("RAY_ADDRESS"):
            return cls(None, 0, None, None)
        import torch

        found = torch.cuda.device_count()
        gpu_bytes = torch.cuda.get_device_properties(0).total_memory if found else None
        return cls(None, found, gpu_bytes, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))

    @classmethod
    def _simulated(cls, config: DictConfig) -> "Cluster":
        given = config.simulate
        if not config.dry_run:
            raise ConfigError("simulate.* is for a plan alone: set dry_run=true")
        for name in ("nodes", "gpus_per_node"):
            if not isinstance(given[name], int) or given[name] < 1:
                raise ConfigError(f"simulate.{name}={given[name]} but at least 1 is expected")
        gpu, host = (int(size * GIB) if size else None for size in (given.gpu_memory_gib, given.host_memory_gib))
        return cls(given.nodes, given.gpus_per_node, gpu, host)

    def missing(self, config: DictConfig) -> list[str]:
        """Return which GPUs policy and judge need that are not there."""
        if self.nodes is None:
            return check_accelerators(config)
        trainer, judge = config.trainer, config.reward.reward_model
        pools = {"trainer": (trainer.nnodes, trainer.n_gpus_per_node)}
        if judge.enable_resource_pool:
            pools["reward.reward_model"] = (judge.nnodes, judge.n_gpus_per_node)
        return self.too_small(config, pools)

    def too_small(self, config: DictConfig, pools: Mapping[str, tuple[int, int]]) -> list[str]:
        """Return which GPUs of these pools a simulated cluster lacks.

        Args:
            config: of a run; `hardware` is read.
            pools: nodes and GPUs of each, by the key that they are configured under.
        """
        if config.hardware.platform != "cuda":
            return []
        assert self.nodes is not None, "asked of a simulated cluster"
        problems = [
            f"hardware={config.hardware.name} needs {gpus} GPUs a node ({owner}.n_gpus_per_node) but a node has "
            f"{self.gpus_per_node}; choose another hardware or lower that number"
            for owner, (_, gpus) in pools.items()
            if gpus > self.gpus_per_node
        ]
        needed = sum(nodes * gpus for nodes, gpus in pools.values())
        there = self.nodes * self.gpus_per_node
        if not problems and needed > there:
            names = " + ".join(f"{owner}.nnodes x n_gpus_per_node" for owner in pools)
            problems.append(f"hardware={config.hardware.name} needs {needed} GPUs ({names}) but there are {there}")
        return problems
