"""One training run on the driver: plan, Ray, task runner, console, what is left behind."""

import functools
import logging
import os
import re
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from vgr_rl.errors import ConfigError
from vgr_rl.segment.auto import is_r_sa2va
from vgr_rl.training import environment, stop
from vgr_rl.training.checkpoint_files import start_from
from vgr_rl.training.console import Console
from vgr_rl.training.data_on_demand import make_missing
from vgr_rl.training.model_spec import is_local
from vgr_rl.training.preflight import MICRO_BATCHES
from vgr_rl.training.ray_agents import agents_end_with_us
from vgr_rl.training.reservation import check_address, reserve
from vgr_rl.training.run_log import RunLog
from vgr_rl.training.segmenter_preflight import segmenter_gpus
from vgr_rl.training.shared_memory import SegmentGuard
from vgr_rl.training.stalls import Stalled, get_watched

logger = logging.getLogger(__name__)

_SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD")


def run(config: DictConfig) -> None:
    """Check the configuration, then print the plan (`dry_run`) or train.

    Raises:
        ConfigError: the configuration, the data or the machine does not fit; nothing was started.
        SystemExit: the run failed; the reason was logged.
    """
    env = environment.apply(config.hardware.env)
    _derive(config)
    from vgr_rl.training.plan import make_plan

    make_missing(config.data.get("make"), data_files(config))
    plan = make_plan(config)
    for line in plan.lines():
        logger.info("%s", line)
    if config.dry_run:
        return
    check_judge(config)
    with open_dict(config):
        config.trainer.total_training_steps = plan.total_steps  # rewards with a schedule count on it
    run_dir = open_run_dir(config)
    start_from(config.trainer, plan.checkpoint)
    _train(config, env, run_dir)


def check_judge(config: DictConfig) -> None:
    """Ask the judge's servers, if there are any yet, before anything is started.

    Raises:
        ConfigError: one of them gives no verdict.
    """
    from vgr_rl.judge.health import require_healthy
    from vgr_rl.judge.settings import judge_settings

    judge: Any = OmegaConf.to_container(config.judge, resolve=True)
    if (settings := judge_settings(judge)) is not None and settings.urls:
        logger.info("judge: %s", require_healthy(settings))


def _derive(config: DictConfig) -> None:
    """Hand our keys to the places where verl's workers read them."""
    with open_dict(config):
        config.run_dir = str(Path(config.run_dir).absolute())
        limits = {name: config.model[name] for name in ("min_pixels", "max_pixels") if config.model[name]}
        config.data.mm_processor_kwargs = {**config.data.mm_processor_kwargs, **limits}
        sequences = config.actor_rollout_ref.actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
        workers = config.trainer.nnodes * config.trainer.n_gpus_per_node
        for owner, key in MICRO_BATCHES:  # an upper bound: a small update is one micro-batch
            if config.actor_rollout_ref[owner][key]:
                config.actor_rollout_ref[owner][key] = min(
                    config.actor_rollout_ref[owner][key], max(1, sequences // workers)
                )
        changes = [changed for terms in (config.reward.get("by_source") or {}).values() for changed in terms.values()]
        for term in [*config.reward.terms.values(), *changes]:
            file, colon, name = str(term.get("use", "")).rpartition(":") if term else ("", "", "")
            if colon and file.endswith(".py"):  # reward workers may run in another folder
                term.use = f"{Path(file).absolute()}:{name}"
        if config.judge.name == "pool" and config.judge.model and is_local(config.judge.model):
            config.judge.model = str(Path(config.judge.model).expanduser().absolute())
        if config.segmenter.model and is_local(config.segmenter.model):
            config.segmenter.model = str(Path(config.segmenter.model).expanduser().absolute())
        if config.judge.get("prompt_file"):
            config.judge.prompt_file = str(Path(config.judge.prompt_file).expanduser().absolute())
        for own in config.validation.benchmarks.values():
            if OmegaConf.is_dict(own) and (data := Path(str(own.get("data"))).expanduser()).exists():
                own.data = str(data.absolute())
        if config.validation.system_prompt_file:
            config.validation.system_prompt_file = str(Path(config.validation.system_prompt_file).absolute())
        if is_r_sa2va(config.model.path):
            config.actor_rollout_ref.model.external_lib = "vgr_rl.training.segment_policy"
            config.actor_rollout_ref.model.override_config.train_projector = bool(config.masks.best_rollout_weight)
        # also when nothing is frozen: the config.json of an earlier run's model tells what was frozen there
        config.actor_rollout_ref.model.override_config.frozen_components = list(config.model.freeze)
    OmegaConf.resolve(config)  # the workers do not know our resolvers


def data_files(config: DictConfig) -> list[str]:
    """Return the training and validation files of a config."""
    files: list[str] = []
    for value in (config.data.train_files, config.data.val_files):
        files += [value] if isinstance(value, str) else list(value)
    return files


def open_run_dir(config: DictConfig) -> Path:
    """Create the run directory and write its config.yaml."""
    run_dir = Path(config.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, run_dir / "config.yaml", resolve=True)
    os.environ["TENSORBOARD_DIR"] = str(run_dir / "tensorboard")
    os.environ["WANDB_DIR"] = str(run_dir)
    if not wandb_logged_in():
        os.environ.setdefault("WANDB_MODE", "offline")
    return run_dir


def wandb_logged_in() -> bool:
    """Return whether a wandb key is at hand, in the environment or in ~/.netrc, without importing wandb."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return netrc.is_file() and "wandb" in netrc.read_text()


def _train(config: DictConfig, env: dict[str, str], run_dir: Path) -> None:
    import ray

    logger.info("starting Ray, the policy and the rollout engine; the first step comes in a minute or two")
    run_log, segments = RunLog(run_dir), SegmentGuard()
    console = Console(run_dir, config.trainer.total_training_steps).start()
    failure: str | None = None
    stopped: stop.Stopped | None = None
    stop.forget(run_dir)
    try:
        start_ray(config, env)
        with stop.on_signals(run_dir) as received, agents_end_with_us():
            reserve(config, run_log.event, functools.partial(_end_if_asked, run_dir))
            runner = _runner_class().remote()
            get_watched(runner.run.remote(config, secrets(config)), "task runner", runner, config.guards.ping_timeout_s)
    except stop.Stopped as error:
        stopped = error
    except (ray.exceptions.RayError, KeyboardInterrupt, ConnectionError, Stalled) as error:
        failure = f"{type(error).__name__}: {error}"
        try:
            run_log.event(failure, "error")
            keep_worker_logs(run_dir)
        except OSError as unwritable:  # a full or read-only disk may be the very fault
            logger.error("%s cannot be written: %s", run_dir, unwritable)
    finally:
        ray.shutdown()
        console.stop()
        segments.remove_new()
    if failure is not None:
        sys.exit(f"the run failed: {console.first_error or failure}\nsee {run_dir}/events.jsonl and {run_dir}/logs")
    if stopped is not None:
        stop.forget(run_dir)
        logger.info("%s; the same command goes on from there", stopped.args[0])
        sys.exit(received.exit_code)
    export_model(Path(config.trainer.default_local_dir), run_dir)
    logger.info("done: see %s (metrics.jsonl, samples.jsonl and, from the last checkpoint, model/)", run_dir)


@functools.cache
def _runner_class() -> Any:
    """Return the actor of the single controller; verl is imported in it, not in the driver (seconds of start-up)."""
    import ray

    @ray.remote(num_cpus=1)
    class Runner:
        def run(self, config: DictConfig, secrets: list[str]) -> None:
            from vgr_rl.training.task_runner import EvidenceTaskRunner

            if missing := [name for name in secrets if name not in os.environ]:
                raise ConfigError(
                    f"{', '.join(missing)}: set here but not on the Ray cluster; export it where `ray start` runs"
                )
            EvidenceTaskRunner().run(config)

    return Runner


def secrets(config: DictConfig) -> list[str]:
    """Return the names of the environment variables with keys that the run's processes read and that are set here."""
    names = ["WANDB_API_KEY"] * ("wandb" in config.trainer.logger)
    names += filter(None, [config.judge.get("api_key_env")])
    return [name for name in names if name in os.environ]


def start_ray(config: DictConfig, env: dict[str, str]) -> None:
    """Connect to the cluster of RAY_ADDRESS (`ray job submit` sets it), or start a local one.

    A runtime environment stands in command lines and on the dashboard, so no secret is in it: the processes of a local
    cluster inherit them, and those of another one have them from where `ray start` ran.
    """
    import ray

    trackers = {name: value for name, value in os.environ.items() if name.startswith(("WANDB_", "TENSORBOARD_DIR"))}
    forwarded = {name: value for name, value in trackers.items() if not _SECRET.search(name)}
    runtime_env: Any = {"env_vars": {}}
    if config.hardware.platform == "cuda":
        from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

        runtime_env = OmegaConf.to_container(OmegaConf.create(get_ppo_ray_runtime_env(config)))
    runtime_env["env_vars"] |= env | forwarded
    runtime_env["env_vars"] |= {"TRANSFER_QUEUE_ENABLE": "1", "VGR_RUN_ID": uuid.uuid4().hex[:12]}
    kwargs: dict[str, Any] = {"runtime_env": runtime_env, "log_to_driver": False, "logging_level": logging.WARNING}
    # Ray tells every user of a local cluster that it protects the cluster with a token
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    if os.environ.get("RAY_ADDRESS"):
        check_address()
    else:
        local: Any = OmegaConf.to_container(config.hardware.ray_local, resolve=True)
        if "num_gpus" in local:  # slots, where there is no GPU that Ray could count
            local["num_gpus"] = max(local["num_gpus"], gpus_needed(config))
        kwargs |= {**local, "address": "local"}
    ray.init(**kwargs)


def gpus_needed(config: DictConfig) -> int:
    """Return how many GPUs policy, judge and segmenter take, or worker slots on a CPU."""
    judge = config.reward.reward_model
    pool = judge.nnodes * judge.n_gpus_per_node if judge.enable_resource_pool else 0
    return int(config.trainer.nnodes * config.trainer.n_gpus_per_node + pool + segmenter_gpus(config))


def _end_if_asked(run_dir: Path) -> None:
    if (reason := stop.requested(run_dir)) is not None:
        raise stop.Stopped(f"stopped by {reason} before it started")


def keep_worker_logs(run_dir: Path) -> None:
    """Copy the error logs of a local cluster's workers to `<run_dir>/logs` before Ray's session folder goes."""
    import ray

    if not ray.is_initialized() or os.environ.get("RAY_ADDRESS"):
        return
    session = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    target = run_dir / "logs"
    target.mkdir(exist_ok=True)
    for log in session.glob("worker-*.err"):
        if log.stat().st_size:
            shutil.copy(log, target)


def export_model(checkpoints: Path, run_dir: Path) -> None:
    """Merge the newest of the checkpoints into `<run_dir>/model`, verified and complete or not at all."""
    from vgr_rl.training.checkpoint_manifest import newest_sound
    from vgr_rl.training.merge import merge_checkpoint

    checkpoint = newest_sound(checkpoints)
    if checkpoint is None:
        logger.info("no checkpoint in %s (see trainer.save_freq), so there is no %s/model", checkpoints, run_dir)
        return
    report = merge_checkpoint(checkpoint, run_dir / "model", overwrite=True)
    logger.info("%s/model: %s", run_dir, report)
