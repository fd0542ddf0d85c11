"""Rewards of R-Sa2VA, whose masks the policy workers make: a mixin, `class T(MaskRewardsMixin, …, PPOTrainerSync)`.

Of other models rollouts are scored while others are generated. The masks of R-Sa2VA need a pass of the policy, which
begins when the rollouts of a step are there; then the same reward workers score all of them, with their masks. verl has
this place for reward models that share the policy's devices, also in validation.
"""

import json
import time
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.experimental.reward_loop import RewardLoopManager
from verl.protocol import DataProto
from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size
from verl.trainer.ppo.utils import Role
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.utils.losses import ppo_loss

from vgr_rl.data.schema import sample_from_json
from vgr_rl.segment.auto import is_r_sa2va
from vgr_rl.training import best_rollout, shared_features
from vgr_rl.training.reward_manager import DETAIL


class RewardsAfterMasks(RewardLoopManager):
    """verl's manager, whose workers no rollout asks on its own."""

    @property
    def reward_loop_worker_handles(self) -> None:
        """None: verl then calls `_compute_reward_colocate` when all rollouts are there."""
        return None


class MaskRewardsMixin:
    """Overrides of `PPOTrainer`, for other models without effect; put it before verl's class among the bases."""

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        if is_r_sa2va(self.config.model.path):
            from vgr_rl.training.segment_policy import SegmentWorker  # registers an engine of its own

            for role in self.role_worker_mapping.keys() - {Role.Critic}:
                self.role_worker_mapping[role] = ray.remote(SegmentWorker)

    def _compute_reward_colocate(self, batch: KVBatchMeta, metrics: dict[str, Any] | None = None) -> KVBatchMeta:
        if not isinstance(self.reward_loop_manager, RewardsAfterMasks):
            return super()._compute_reward_colocate(batch, metrics)
        self.watchdog.enter("masks and rewards")
        started = time.perf_counter()
        self._decode_masks(batch)
        took_s = time.perf_counter() - started
        learns = self._learns_masks and metrics is not None  # validation makes no update
        if not learns:
            shared_features.clear(shared_features.PICTURES)
        best = self._score(batch, learns)
        if metrics is None:
            shared_features.clear(shared_features.PARTITION)
        else:
            metrics["timing_s/masks"] = took_s
            if learns:
                metrics["masks/best_rollouts"] = best
        return batch

    @property
    def _learns_masks(self) -> bool:
        return bool(self.config.masks.best_rollout_weight)

    def _own_loss(self) -> Any:
        loss = super()._own_loss()
        if not self._learns_masks:
            return loss
        config = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
        policy_loss = loss or partial(ppo_loss, config=config)
        return best_rollout.BestRolloutLoss(policy_loss, self.config.masks.best_rollout_weight)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch = super()._update_actor(batch, metrics)
        if self._learns_masks:
            metrics.update(best_rollout.loss_metrics(metrics))
            shared_features.clear(shared_features.PICTURES)
        return batch

    def _decode_masks(self, batch: KVBatchMeta) -> None:
        """Have the policy workers put `masks` to each rollout; a group goes to one of them, as far as it can."""
        from vgr_rl.training.segment_policy import MASK_FIELDS

        rollouts = batch.select_keys(sorted(batch.keys))
        rollouts.extra_info = {}
        workers = self.actor_rollout_wg
        padded = upsample_batch_to_divisible_size(rollouts, workers.world_size, self.tokenizer.eos_token_id)
        padded.fields = list(MASK_FIELDS)
        workers.decode_masks(padded)
        if added := list(set(padded.keys) - set(batch.keys)):
            tq.kv_clear(keys=added, partition_id=batch.partition_id)

    def _score(self, batch: KVBatchMeta, learns: bool) -> int:
        """Have the reward workers score all rollouts, and store what the agent loop stores of other models.

        Args:
            batch: the rollouts.
            learns: whether masks of the best ones are learnt.

        Returns:
            Groups whose best rollout has masks to learn.
        """
        fields = ["responses", "extra_info", "masks", "extra_fields"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        responses = list(data.pop("responses").unbind())
        columns = {name: data.pop(name).tolist() for name in fields[1:]}
        given = _reward_input(responses, columns["extra_info"], columns["masks"], self.global_steps)
        workers = self.reward_loop_manager.reward_loop_workers
        bounds = np.linspace(0, len(given), min(len(workers), len(given)) + 1, dtype=int).tolist()
        asked = [
            worker.compute_score_batch.remote(given[start:end])
            for worker, start, end in zip(workers, bounds, bounds[1:], strict=False)
        ]
        scores = [score for part in ray.get(asked) for score in part]
        rows: list[dict[str, Any]] = []
        for response, score, extra in zip(responses, scores, columns["extra_fields"], strict=True):
            rm_scores = torch.zeros(len(response), dtype=torch.float32)
            rm_scores[-1] = score["reward_score"]
            info = score.get("reward_extra_info", {})
            rows.append({"rm_scores": rm_scores, "extra_fields": {**extra, "reward_extra_info": info}})
        best = []
        if learns:
            for row in rows:
                row[best_rollout.FIELD] = best_rollout.NONE
            best = best_rollout.best_of_groups(batch.keys, [score["reward_score"] for score in scores])
        for place in best:
            response = json.loads(rows[place]["extra_fields"]["reward_extra_info"][DETAIL])["response"]
            sample = sample_from_json(columns["extra_info"][place]["sample"])
            masks = columns["masks"][place]["rles"]
            rows[place][best_rollout.FIELD] = best_rollout.masks_to_learn(response, masks, sample)
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=list_of_dict_to_tensordict(rows))
        return sum(bool(rows[place][best_rollout.FIELD]["segs"]) for place in best)


def rewards_of(config: DictConfig) -> type[RewardLoopManager]:
    """Return the class of the reward manager for the model of a run."""
    return RewardsAfterMasks if is_r_sa2va(config.model.path) else RewardLoopManager


def _reward_input(responses: list[torch.Tensor], extra_info: list[Any], masks: list[Any], step: int) -> DataProto:
    padded = torch.nn.utils.rnn.pad_sequence(responses, batch_first=True)
    ones = [torch.ones_like(response) for response in responses]
    mask = torch.nn.utils.rnn.pad_sequence(ones, batch_first=True)
    batch = TensorDict({"responses": padded, "attention_mask": mask}, batch_size=len(responses))
    columns = {
        "extra_info": _column(extra_info),
        "masks": _column([row["rles"] for row in masks]),
        "global_steps": np.full(len(responses), step),
    }
    return DataProto(batch=batch, non_tensor_batch=columns)


def _column(values: list[Any]) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):  # a slice would make columns of lists of one length
        column[place] = value
    return column
