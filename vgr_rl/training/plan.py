"""The resolved plan of a run: what `dry_run=true` prints and every run prints first."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rewards.load import find_reward
from vgr_rl.errors import ConfigError, bullet_list
from vgr_rl.monitoring import pictures
from vgr_rl.segment.auto import MODEL_TYPE
from vgr_rl.training import checkpoint_files, memory, memory_plan, preflight
from vgr_rl.training.best_checkpoint import BestCheckpoint
from vgr_rl.training.cluster import Cluster
from vgr_rl.training.data_order import steps_per_epoch
from vgr_rl.training.judge_preflight import check_judge
from vgr_rl.training.model_spec import ModelSpec
from vgr_rl.training.placement import check_placement
from vgr_rl.training.policy_preflight import check_segment_policy, trained_beside_adapters, trained_of
from vgr_rl.training.segmenter_preflight import check_segmenter
from vgr_rl.training.validation import check_best_metric, check_validation, load_validations
from vgr_rl.training.validation_benchmarks import Validation


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked configuration.

    Attributes:
        facts: (heading, text) pairs in the order they are printed.
        total_steps: training steps of the whole run.
        checkpoint: what the run starts from; None: from `model.path`.
    """

    facts: tuple[tuple[str, str], ...]
    total_steps: int
    checkpoint: Path | None

    def lines(self) -> list[str]:
        """Return the plan as lines of text."""
        width = max(len(heading) for heading, _ in self.facts)
        return [f"{heading:>{width}}  {text}" for heading, text in self.facts]


def make_plan(config: DictConfig) -> Plan:
    """Check everything that can be known before workers start.

    Raises:
        ConfigError: with every problem that was found, each naming its knob.
    """
    from transformers import AutoConfig, AutoTokenizer

    wrong = preflight.check_values(config) + check_placement(config)
    if wrong:
        raise ConfigError(f"{len(wrong)} value(s) cannot be used:\n{bullet_list(wrong)}")
    spec = ModelSpec.load(config.model.path, config.model.frame, config.model.min_pixels, config.model.max_pixels)
    folder = str(Path(config.model.path).expanduser())
    cluster = Cluster.of(config)
    missing_gpus = cluster.missing(config)
    problems = preflight.check_architecture(spec) + check_segment_policy(config, spec)
    problems += [] if config.dry_run else missing_gpus
    tokenizer = AutoTokenizer.from_pretrained(folder)
    train, problems_train = _check_data(config, "train_files", tokenizer, spec)
    val, problems_val = _check_data(config, "val_files", tokenizer, spec)
    problems += problems_train + problems_val + _check_rewards(config, train.sources | val.sources)
    problems += check_judge(config) + check_segmenter(config)
    checkpoint = None
    if not problems_train:
        problems += preflight.check_batch(config, train.samples)
        checkpoint, problems_checkpoint = _check_checkpoints(config, spec, _total_steps(config, train.samples))
        problems += problems_checkpoint
    validations, problems_validation = _check_validation(config, tokenizer, spec)
    problems += problems_validation
    if problems:
        raise ConfigError(f"{len(problems)} problem(s) found before anything was started:\n{bullet_list(problems)}")
    hf_config = AutoConfig.from_pretrained(folder)
    counts = memory.count_parameters(hf_config)
    judge = _judge_parameters(config)
    beside = trained_beside_adapters(config, hf_config) if spec.model_type == MODEL_TYPE else None
    needs = memory_plan.estimate(config, hf_config, counts, spec, train.longest, cluster, judge, beside)
    facts = (
        *_facts(config, spec, train, val, counts),
        *_validation_fact(config, validations),
        *([("resumes", str(checkpoint))] if checkpoint else []),
        *needs.lines(),
        *(("node", line) for line in cluster.lines(config)),
        *(("but", problem) for problem in missing_gpus + memory_plan.check(needs, cluster)),
    )
    return Plan(facts, _total_steps(config, train.samples), checkpoint)


def _judge_parameters(config: DictConfig) -> int:
    from transformers import AutoConfig

    if config.judge.name != "pool":
        return 0
    return memory.count_language_model(AutoConfig.from_pretrained(Path(config.judge.model).expanduser()))


def _check_checkpoints(config: DictConfig, spec: ModelSpec, total_steps: int) -> tuple[Path | None, list[str]]:
    try:
        checkpoint_files.check_weights(config.model.path, spec)
        checkpoint = checkpoint_files.resume_point(config.trainer)
        if checkpoint is not None:
            checkpoint_files.check_resume(checkpoint / "actor", spec, total_steps)
            if config.actor_rollout_ref.actor.strategy != "fsdp2":
                checkpoint_files.check_processes(checkpoint / "actor", _workers(config))
    except ConfigError as error:
        return None, [str(error)]
    return checkpoint, []


def _check_validation(config: DictConfig, tokenizer: Any, spec: ModelSpec) -> tuple[list[Validation], list[str]]:
    problems = check_validation(config)
    settings, limit = config.validation, config.data.max_prompt_length
    try:
        if settings.best_metric is not None:
            BestCheckpoint(config.trainer.default_local_dir, settings.best_metric, settings.best_mode)
        validations = load_validations(config)
        problems += check_best_metric(settings.best_metric, validations)
        for own in validations:
            budget = preflight.measure_prompts(own.rows(), Path(), tokenizer, spec, config.model.prefill, limit)
            problems += preflight.check_budget(budget, limit, f"validation.benchmarks.{own.name}")
    except ValueError as error:
        return [], [*problems, str(error)]
    return validations, problems


def _validation_fact(config: DictConfig, validations: list[Validation]) -> list[tuple[str, str]]:
    if not validations and config.validation.best_metric is None:
        return []
    asked = ", ".join(own.describe() for own in validations) or "data.val_files"
    metric = config.validation.best_metric
    best = f"; checkpoints/best has the best {metric} ({config.validation.best_mode})" if metric else ""
    return [("validates", f"{asked} every {config.trainer.test_freq} steps{best}")]


def _workers(config: DictConfig) -> int:
    return config.trainer.nnodes * config.trainer.n_gpus_per_node


def _total_steps(config: DictConfig, samples: int) -> int:
    per_epoch = samples // config.data.train_batch_size
    return config.trainer.total_training_steps or per_epoch * config.trainer.total_epochs


def _check_rewards(config: DictConfig, sources: frozenset[str]) -> list[str]:
    from vgr_rl.training.grading import build_rewards

    reward: Any = OmegaConf.to_container(config.reward, resolve=True)
    try:
        rewards = build_rewards(reward)
    except (ValueError, TypeError) as error:
        return [str(error)]
    changes = [changed for terms in (reward.get("by_source") or {}).values() for changed in terms.values()]
    sources_of_masks = {
        ((term or {}).get("params") or {}).get("source") for term in [*reward["terms"].values(), *changes]
    }
    if "box_masks" in sources_of_masks and config.segmenter.model is None:
        return ["reward: a term has source=box_masks but segmenter.model=null; name the SAM2 that makes these masks"]
    unknown = sorted(set(rewards.by_source) - sources) if sources else []
    return [f"reward.by_source.{name}: the data have no such data_source, only {sorted(sources)}" for name in unknown]


def _check_data(
    config: DictConfig, key: str, tokenizer: Any, spec: ModelSpec
) -> tuple[preflight.TokenBudget, list[str]]:
    from vgr_rl.data.schema import read_samples
    from vgr_rl.data.validate import check_samples

    problems: list[str] = []
    longest, longest_id, samples, sources = 0, "", 0, frozenset[str]()
    budget_limit, files = config.data.max_prompt_length, config.data[key]
    for file in [files] if isinstance(files, str) else list(files):
        found = check_samples(file, f"data.{key}")
        problems += [str(problem) for problem in found]
        if found:
            continue
        folder, prefill = Path(file).resolve().parent, config.model.prefill
        budget = preflight.measure_prompts(read_samples(file), folder, tokenizer, spec, prefill, budget_limit)
        problems += preflight.check_budget(budget, budget_limit, file)
        samples, sources = samples + budget.samples, sources | budget.sources
        if budget.longest > longest:
            longest, longest_id = budget.longest, budget.longest_id
    return preflight.TokenBudget(longest, longest_id, (), (), samples, sources), problems


def _facts(
    config: DictConfig,
    spec: ModelSpec,
    train: preflight.TokenBudget,
    val: preflight.TokenBudget,
    counts: dict[str, int],
) -> list[tuple[str, str]]:
    rollout, actor = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    batch, group = config.data.train_batch_size, rollout.n
    workers = _workers(config)
    epoch = steps_per_epoch(train.samples, batch)
    steps = _total_steps(config, train.samples)
    rule = spec.resize_rule
    kl = f"KL loss {actor.kl_loss_coef} ({actor.kl_loss_type})" if actor.use_kl_loss else "no KL"
    terms = " + ".join(_term(name, term) for name, term in config.reward.terms.items() if term)
    if by_source := config.reward.get("by_source"):
        terms += f"; otherwise for {', '.join(by_source)}"
    return [
        ("model", f"{config.model.path} ({spec.architecture}, {sum(counts.values()):,} parameters)"),
        ("frame", f"boxes in {spec.frame}; images resized to multiples of {rule.factor} px, "
                  f"{rule.min_pixels:,} to {rule.max_pixels:,} px each"),
        ("trains", trained_of(config) if spec.model_type == MODEL_TYPE else _trains(config, counts)),
        ("data", f"{train.samples:,} samples to train on, {val.samples:,} to validate on"),
        ("tokens", f"prompt <= {config.data.max_prompt_length} (longest {train.longest}, sample {train.longest_id}), "
                   f"response <= {config.data.max_response_length}"),
        ("reward", terms),
        ("step", f"{batch} prompts x {group} rollouts = {batch * group} sequences; "
                 f"{batch // actor.ppo_mini_batch_size} update(s) of {actor.ppo_mini_batch_size * group}; {kl}; "
                 f"lr {actor.optim.lr:g}"),
        ("run", f"{steps} steps, {epoch} a pass over the data; checkpoint every {config.trainer.save_freq}; "
                f"in {config.run_dir}"),
        ("resources", f"hardware={config.hardware.name}: {workers} policy worker(s), "
                      f"{workers // rollout.tensor_model_parallel_size} rollout engine(s), "
                      f"{rollout.agent.num_workers} agent-loop and {config.reward.num_workers} reward worker(s), "
                      f"judge={config.judge.name}"),
        ("pictures", pictures.described(config)),
    ]  # fmt: skip


def _term(name: str, term: DictConfig) -> str:
    """Return a reward term with its weight and the parameters that differ from its defaults."""
    defaults = inspect.signature(find_reward(term.get("use") or name, where=f"reward.terms.{name}")).parameters
    given: Any = OmegaConf.to_container(term.get("params") or OmegaConf.create({}))
    changed = {key: value for key, value in given.items() if value != _plain(defaults[key].default)}
    params = ", ".join(f"{key}={value}" for key, value in changed.items())
    return f"{term.get('weight', 1.0):g} {name}" + (f"({params})" if params else "")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _trains(config: DictConfig, counts: dict[str, int]) -> str:
    if config.actor_rollout_ref.model.lora_rank > 0:
        return f"LoRA rank {config.actor_rollout_ref.model.lora_rank} adapters; everything else is frozen"
    frozen = {part for part in counts if part in config.model.freeze}
    trained = sum(count for part, count in counts.items() if part not in frozen)
    parts = [f"{part} {count:,}{' frozen' if part in frozen else ''}" for part, count in counts.items()]
    return f"{trained:,} of {sum(counts.values()):,} parameters ({', '.join(parts)})"
