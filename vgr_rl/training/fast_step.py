"""What makes a step of verl's synchronous trainer fast: a mixin, `class Trainer(FastStepMixin, PPOTrainerSync)`.

It sends groups instead of rollouts to vLLM, polls often, fetches only the fields that the update reads, and leaves out
the pass for the old log-probs when the batch is on-policy. Starting the actors side by side is `fast_start`.
"""

import time
from functools import partial
from typing import Any

from omegaconf import DictConfig, open_dict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import RolloutReplicaRegistry

from vgr_rl.training import best_rollout, on_policy, shared_features
from vgr_rl.training.rollout_client import GroupClient
from vgr_rl.verl_patches import replaced_names

_POLL_INTERVAL_S = 0.05  # verl waits 2 s, most of a short step
_POLL_REST = 10  # times as long as a poll takes, which lists every rollout: the driver does not spend its time on them
_UPDATE_FIELDS = (
    "prompts",
    "responses",
    "input_ids",
    "position_ids",
    "response_mask",
    "loss_mask",
    "multi_modal_inputs",
    "rollout_log_probs",
    "advantages",
    "old_log_probs",
    "ref_log_prob",
    "rollout_is_weights",
    best_rollout.FIELD,
)


def _group_replica() -> type:
    from vgr_rl.training.rollout_server import GroupReplica  # imports vLLM

    return GroupReplica


class RestingReplayBuffer(ReplayBuffer):
    """Polls often while there are few rollouts, and hands them out by name, not as they were finished."""

    def _sync_metadata_from_transfer_queue(self) -> None:
        started_s = time.monotonic()
        super()._sync_metadata_from_transfer_queue()
        self.poll_interval = max(_POLL_INTERVAL_S, _POLL_REST * (time.monotonic() - started_s))

    def _materialize_batch(
        self, partition_id: str, uids: list[str], rollouts: dict[str, dict[str, Any]]
    ) -> KVBatchMeta:
        return super()._materialize_batch(partition_id, uids, dict(sorted(rollouts.items())))


class FastStepMixin:
    """Overrides of `PPOTrainer`; put it first among the bases."""

    def __init__(self, config: DictConfig) -> None:
        self._on_policy = on_policy.needs_no_old_log_probs(config)
        if self._on_policy:
            with open_dict(config):
                # null terms only: verl would still compute its diagnostics, from old log-probs that are not there
                config.algorithm.rollout_correction = None
        if config.actor_rollout_ref.rollout.disaggregation.enabled or config.actor_rollout_ref.rollout.name != "vllm":
            raise ValueError(
                f"actor_rollout_ref.rollout.name={config.actor_rollout_ref.rollout.name} cannot sample whole groups; "
                "use vllm without disaggregation"
            )
        RolloutReplicaRegistry.register("vllm", _group_replica)
        super().__init__(config)

    def _build_replay_buffer(self) -> Any:
        with replaced_names(trainer_base, ReplayBuffer=RestingReplayBuffer):
            return super()._build_replay_buffer()

    def get_llm_client(self) -> LLMServerClient:
        """Return the client that can ask for whole groups."""
        return GroupClient(self.config, self.llm_server_manager.server_handles)

    def on_init_end(self) -> None:
        """Give the policy workers a loss of ours, when one applies."""
        if (loss := self._own_loss()) is not None:
            self.actor_rollout_wg.set_loss_fn(loss)
        super().on_init_end()

    def _own_loss(self) -> Any:
        """Return the loss without old log-probs; None when verl's applies."""
        if not self._on_policy:
            return None
        return partial(on_policy.on_policy_loss, config=omega_conf_to_dataclass(self.config.actor_rollout_ref.actor))

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        if self._on_policy:
            return batch
        batch.fields = list(_UPDATE_FIELDS)
        batch = super()._compute_old_log_prob(batch, metrics)
        batch.fields = None
        return batch

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch.fields = list(_UPDATE_FIELDS)
        batch = super()._compute_ref_log_prob(batch, metrics)
        batch.fields = None
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch.fields = list(_UPDATE_FIELDS)
        batch = super()._update_actor(batch, metrics)
        batch.fields = None
        if self._on_policy:
            metrics.update(on_policy.comparison_metrics(metrics))
        shared_features.clear()  # in lockstep no other prompt is under way
        return batch
