"""verl's pools of GPUs in the placement groups that `vgr_rl.training.reservation` holds."""

from typing import Any

from verl.single_controller.ray import ResourcePoolManager
from verl.single_controller.ray.base import sort_placement_group_by_node_ip

from vgr_rl.training.reservation import group

_PARTS = {"global_pool": "policy", "reward_pool": "judge"}


class ReservedPools(ResourcePoolManager):
    """Pools that ask Ray for nothing: verl's would wait for ever for what the cluster does not have."""

    def create_resource_pool(self) -> None:
        """Give each pool its placement groups."""
        super().create_resource_pool()
        for name, part in _PARTS.items():
            if (pool := self.resource_pool_dict.get(name)) is not None:
                pool.pgs = sort_placement_group_by_node_ip([group(part, index) for index in range(len(pool.store))])

    def _check_resource_available(self) -> None:
        """Nothing: what is reserved counts as taken."""


class PlacementMixin:
    """Override of `PPOTrainer`; put it before verl's class among the bases."""

    resource_pool_manager: Any

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()  # type: ignore[misc]
        made = self.resource_pool_manager
        self.resource_pool_manager = ReservedPools(made.resource_pool_spec, made.mapping)
