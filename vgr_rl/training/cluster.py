"""The machines that a plan is for: this one, or those of `simulate`."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from vgr_rl.errors import ConfigError
from vgr_rl.training.placement import PARTS, Node, groups_of, place, problems
from vgr_rl.training.preflight import check_accelerators
from vgr_rl.training.reservation import ask_cluster

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Cluster:
    """What there is to run on.

    Attributes:
        nodes: machines of a simulated cluster; None for what is really there.
        gpus_per_node: GPUs of each.
        gpu_bytes: memory of a GPU; None when unknown.
        host_bytes: memory of a node; None when unknown.
        ray_nodes: those of the Ray cluster that is asked for a plan (RAY_ADDRESS); None for anything else.
        other_run: a problem where a run is on that cluster already.
    """

    nodes: int | None
    gpus_per_node: int
    gpu_bytes: int | None
    host_bytes: int | None
    ray_nodes: Sequence[Node] | None = None
    other_run: Sequence[str] = ()

    @classmethod
    def of(cls, config: DictConfig, on_ray: bool = True) -> "Cluster":
        """Return the simulated cluster, the Ray cluster of RAY_ADDRESS, which is asked for a plan, or this machine.

        Args:
            config: of a run; `simulate` and `dry_run` are read.
            on_ray: whether it runs on the Ray cluster, if there is one.

        Raises:
            ConfigError: no Ray cluster there, or a simulated one for more than a plan, or without its size.
        """
        given = config.simulate
        if any(value is not None for value in given.values()):
            return cls._simulated(config)
        if on_ray and os.environ.get("RAY_ADDRESS"):
            nodes, other_run = ask_cluster() if config.dry_run else (None, [])
            return cls(None, 0, None, None, nodes, other_run)
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
        """Return what policy, judge and segmenter need that is not there."""
        if (nodes := self._placeable(config)) is None:
            return check_accelerators(config)
        return [*problems(groups_of(config, nodes), nodes), *self.other_run]

    def lines(self, config: DictConfig) -> list[str]:
        """Return one line for each node of the Ray cluster: what the run needs of it, what it has, what it lacks."""
        nodes = self.ray_nodes or ()
        return place(groups_of(config, nodes), nodes).lines()

    def too_small(self, config: DictConfig) -> list[str]:
        """Return which GPUs a simulated cluster lacks for `trainer` alone."""
        if config.hardware.platform != "cuda":
            return []
        assert self.nodes is not None, "asked of a simulated cluster"
        nodes, gpus = config.trainer.nnodes, config.trainer.n_gpus_per_node
        if gpus > self.gpus_per_node:
            return [
                f"hardware={config.hardware.name} needs {gpus} GPUs a node (trainer.n_gpus_per_node) but a node has "
                f"{self.gpus_per_node}; choose another hardware or lower that number"
            ]
        if nodes > self.nodes:
            return [f"trainer.nnodes={nodes} but there are {self.nodes} nodes (simulate.nodes)"]
        return []

    def _placeable(self, config: DictConfig) -> Sequence[Node] | None:
        """Return the nodes of which the GPUs are known, None for this machine."""
        if self.nodes is None or config.hardware.platform != "cuda":
            return self.ray_nodes
        names = (config.placement[part] for part in PARTS)
        has = {"GPU": self.gpus_per_node, "CPU": math.inf, **{name: 1 for name in names if name}}
        return [Node(f"{number:06}", f"node {number}", has, has) for number in range(1, self.nodes + 1)]
