"""Every metric that a run logs, with what it means: the source of the documentation's reference.

A pattern is a metric's name in which `<word>` stands for one part of it and `{a,b}` for a or b.
"""

import functools
import re

from rewards.diagnostics import WARNINGS
from vgr_rl.training.evidence_metrics import DIAGNOSTICS

_MOMENTS = "{mean,max,min}"

METRICS: dict[str, dict[str, str]] = {
    "Reward": {
        "reward/score/mean": "mean reward of the rollouts whose reward did not fail",
        "reward/<part>/mean": "mean of a part, such as accuracy, recall_iou or boxes, over the rollouts that have it",
        "reward/<part>/std": "its standard deviation over the rollouts of the step",
        "reward/<part>/zero_rate": "share of rollouts in which it is 0",
        "reward_term/<term>/zero_rate": "share of 0 among the rollouts to which a term applied; 1 is a dead term",
        "reward/<term>/not_applicable_rate": "share of rollouts to which a term did not apply; logged when not 0",
        "reward/<term>/failed_rate": "share of rollouts in which a term failed; logged when not 0",
        "reward/failure_rate": "share of rollouts without a reward; limit guards.max_reward_failure_rate",
        "reward_correlation/<term>~<term>": "correlation of the values of two terms over the rollouts of the step; "
        "below 0 they pull apart",
        "group/zero_variance_rate": "share of groups in which all rollouts have one score, so that nothing is learned",
    },
    "Evidence": {
        "evidence/no_box_rate": "share of rollouts without a valid box",
        **{
            metric: f"mean of `{name}` (docs/rewards.md, signs of reward hacking)"
            for name, metric in DIAGNOSTICS.items()
        },
    },
    "Responses": {
        "response/length/{mean,max}": "tokens of a response",
        "response/truncated_rate": "share of responses that end at data.max_response_length",
        "response/aborted_ratio": "share of responses without a token",
        f"response_length/{_MOMENTS}": "tokens of a response, as verl counts them",
        f"response_length_non_aborted/{_MOMENTS}": "the same, of responses with a token",
        "{response_length,response_length_non_aborted,prompt_length}/clip_ratio": "share that is as long as its limit",
        f"prompt_length/{_MOMENTS}": "tokens of a prompt, those of its images included",
        f"num_turns/{_MOMENTS}": "turns of a conversation; 2 without tools",
        f"training/num_turns/{_MOMENTS}": "the same",
    },
    "Judge": {
        "judge/questions": "questions that the step had for the judge",
        "judge/asked": "questions that a server was asked",
        "judge/cache_hits": "questions that were answered from the cache",
        "judge/shared": "questions that waited for the same one, already asked",
        "judge/failed": "questions without a verdict",
        "judge/failure_rate": "their share; limit judge.max_failure_rate",
        "judge/right_rate": "share of the verdicts that say right",
        "judge/retries": "requests that were repeated after an error",
        "judge/reasked": "requests that were repeated since the answer had no verdict in it",
        "judge/tokens": "tokens that the judge wrote",
        "judge/latency_s/{p50,p95}": "median and 95th percentile of the seconds of a verdict",
        "judge/added_s": "seconds from the last rollout to the last verdict: what judging adds to the step",
        "judge/restarts": "servers of the judge that were started again since the run began (judge=pool)",
    },
    "Policy": {
        "actor/entropy": "entropy of the policy, mean over the tokens of the responses, nats",
        "actor/loss": "the loss that is minimised",
        "actor/pg_loss": "its policy-gradient part",
        "actor/kl_loss": "divergence from the reference policy (actor_rollout_ref.actor.use_kl_loss)",
        "actor/kl_coef": "its weight in the loss",
        "actor/ppo_kl": "divergence of the policy in the update from the one that sampled",
        "actor/pg_clipfrac": "share of tokens whose probability ratio was clipped",
        "actor/pg_clipfrac_lower": "share of tokens clipped from below, with a negative advantage",
        "actor/grad_norm": "norm of the gradient before it is clipped",
        "actor/lr": "learning rate",
        f"critic/score/{_MOMENTS}": "score of a response as verl sees it: a failed reward counts as 0",
        f"critic/rewards/{_MOMENTS}": "the same after verl's KL penalty, if any",
        f"critic/advantages/{_MOMENTS}": "advantage of a token",
        f"critic/returns/{_MOMENTS}": "return of a token",
        "variance_proxy/<number>": "verl's estimates of the gradient's variance",
    },
    "Masks of best rollouts (masks.best_rollout_weight)": {
        "masks/best_rollouts": "groups whose best rollout has a right mask in its answer",
        "masks/best_rollout_loss": "2 x BCE + 0.5 x Dice between the union of its answer's masks and that of the true "
        "ones, mean over these groups, before the weight",
        "masks/best_rollout_{bce,dice}": "the two: cross-entropy a pixel, and 1 less the Dice coefficient",
    },
    "Rollouts and policy": {
        "training/rollout_actor_probs_pearson_corr": "correlation of the sampled tokens' probabilities in the rollout "
        "engine and in the policy; limit guards.min_logprob_correlation",
        "training/rollout_actor_kl": "divergence of the policy from the rollout engine, an estimate",
        "training/rollout_probs_diff_{mean,max,std}": "how far those probabilities are apart",
        "training/rollout_probs_diff_valid": "1 where the comparison could be made",
        "rollout_corr/<number>": "verl's rollout correction (algorithm.rollout_correction), where it is on",
        f"training/off_policy/trajectory_spans/{_MOMENTS}": "weight versions that one response was sampled with",
        f"training/off_policy/trajectory_staleness/{_MOMENTS}": "weight versions between sampling and the update",
        f"training/off_policy/trajectory_staleness_worst/{_MOMENTS}": "the same, counted from a response's first token",
        "training/filter_groups/{discarded_surplus_samples,evicted_samples}": "rollouts that DAPO sampled and left out",
        "training/global_step": "the step",
        "training/epoch": "passes over the data before it",
    },
    "Validation": {
        "val-core/<source>/reward/<statistic>": "score of a data source; mean@N is over N responses to each item",
        "val-aux/<source>/<part>/<statistic>": "a reward part of them",
        "val-aux/num_turns/{mean,max,min}": "turns of a conversation",
        "val/<benchmark>/overall": "official score of a benchmark of validation.benchmarks (docs/benchmarks.md)",
        "val/<benchmark>/miou": "mean over its questions of the mean over true boxes of the best IoU: recall",
        "val/<benchmark>/{precision_iou,dual_iou}": "the same for the boxes that were written; the mean of both",
        "val/<benchmark>/boxes_per_answer": "valid boxes of a response",
        "val/<benchmark>/{malformed_share,truncated_share}": "share of `<box>` that are none; of responses cut off",
        "val/<benchmark>/missing": "questions without a response, which count as wrong",
        "val/<benchmark>/{reasoning,answer}/{miou,lq,sq}": "of VRT-Bench: mean IoU; share above 0.5; mean of those",
        "val/<benchmark>/{reasoning,answer}/{precision_iou,predicted_masks}": "mean IoU and number of predicted masks",
        "val/<benchmark>/segs_without_mask": "`[SEG]` that predict nothing",
        "val/<benchmark>/responses_{without_answer,with_several_answers}": "their `[SEG]` belong to no section",
        "val/<benchmark>/<class>/{reasoning,answer}/{miou,lq,sq}": "the same, of the questions of a class",
        "val/<benchmark>/accuracy/<category>": "share of right answers in a category",
        "val/<benchmark>/accuracy/<group>/<category>": "the same, of a benchmark whose categories are grouped",
    },
    "Time and machines": {
        "timing_s/step": "seconds of a step, without validation and without what only logs",
        "timing_s/gen": "seconds until every response is sampled and graded",
        "timing_s/{reward,old_log_prob,ref,values,adv,update_critic,update_actor,update_weights}": "seconds of a stage",
        "timing_s/{save_checkpoint,testing,start_profile,stop_profile}": "seconds of what only some steps do",
        "timing_s/masks": "seconds in which the policy makes the masks of R-Sa2VA; part of timing_s/reward",
        "timing_s/pictures": "seconds in which rollouts, of validation too, were drawn for wandb and tensorboard",
        "timing_per_token_ms/<stage>": "milliseconds of a stage for each token",
        "perf/throughput": "tokens a second and worker, prompts included",
        "perf/time_per_step": "seconds of the step",
        "perf/total_num_tokens": "tokens of the step, prompts included",
        "perf/mfu/<part>": "share of the machine's peak arithmetic; 0 where verl does not know the machine",
        "actor/perf/{cpu_memory_used_gb,max_memory_allocated_gb,max_memory_reserved_gb}": "memory of a policy worker",
        "perf/{cpu_memory_used_gb,max_memory_allocated_gb,max_memory_reserved_gb}": "memory of a cold start's process",
        "global_seqlen/{mean,max,min,minmax_diff,balanced_max,balanced_min}": "tokens of a policy worker before and "
        "after responses are dealt out evenly",
    },
    "Cold start (`vgr_rl.sft`)": {
        "train/loss": "mean negative log-likelihood of the tokens that are learned",
        "train/grad_norm": "norm of the gradient before it is clipped",
        "train/lr": "learning rate",
        "train/global_tokens": "tokens of the step",
        "train/total_tokens(B)": "tokens since the run began, in thousand millions",
        "train/mfu": "share of the machine's peak arithmetic",
        "val/loss": "the loss on data.val_files",
        "{train,val}/lm_loss": "its part over tokens, where masks are learned too",
        "{train,val}/mask_{bce,dice}": "its parts over masks: cross-entropy a pixel, and 1 less the Dice coefficient",
        "{train,val}/mask_iou": "IoU of the masks that are learned",
    },
}
"""Meaning by pattern, by heading; of two patterns that fit a name, the first counts."""

LIMITS = {DIAGNOSTICS[limit.metric]: limit.above for limit in WARNINGS}
"""Metrics whose mean above this value warns of reward hacking, unless guards.hacking_limits says otherwise."""


def meaning(name: str) -> str | None:
    """Return what a metric means, None when nothing is known of it.

    Example:
        >>> meaning("reward/dual_iou/zero_rate")
        'share of rollouts in which it is 0'
    """
    for pattern, text in _patterns():
        if pattern.fullmatch(name):
            return text
    return None


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    return [(_compiled(name), text) for group in METRICS.values() for name, text in group.items()]


def _compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern as a regular expression."""
    pieces = re.split(r"(<\w+>|\{[^}]*\})", pattern)
    return re.compile("".join(map(_piece, pieces)))


def _piece(piece: str) -> str:
    if piece.startswith("<"):
        return "[^/~]+"
    if piece.startswith("{"):
        return f"(?:{'|'.join(map(re.escape, piece[1:-1].split(',')))})"
    return re.escape(piece)
