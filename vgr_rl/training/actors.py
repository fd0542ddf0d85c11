"""The actors that a run consists of, by the names that its messages use."""

from typing import Any

import transfer_queue


def actors_of(trainer: Any) -> dict[str, Any]:
    """Return the handles of the actors that there are by now, by a name that a person can find in the logs."""
    named: dict[str, Any] = {}
    worker_group = getattr(trainer, "actor_rollout_wg", None)
    if worker_group is not None:
        named |= {f"policy worker {rank}": actor for rank, actor in enumerate(worker_group.workers)}
    servers = getattr(trainer, "llm_server_manager", None)
    if servers is not None:
        for replica in servers.get_replicas():
            named |= {f"vLLM server {replica.replica_rank}.{i}": actor for i, actor in enumerate(replica.servers)}
    rewards = getattr(trainer, "reward_loop_manager", None)
    if rewards is not None:
        named |= {f"reward worker {i}": actor for i, actor in enumerate(rewards.reward_loop_workers)}
    agents = getattr(trainer, "agent_loop_manager", None)
    if agents is not None:
        named |= {f"agent-loop worker {i}": actor for i, actor in enumerate(agents.agent_loop_workers)}
        # not before training begins: verl ends the storage itself when the start fails
        storage = (transfer_queue.interface._TQ_STORAGE or {}).get("SimpleStorage", {})
        named |= {f"TransferQueue storage {i}": actor for i, actor in enumerate(storage.values())}
    return named
