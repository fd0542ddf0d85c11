"""Runs a cold start: environment, checks, training processes, export of the trained model."""

import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vgr_rl.training import environment, stop
from vgr_rl.training.checkpoint_manifest import complete, step_of
from vgr_rl.training.launch import wandb_logged_in
from vgr_rl.training.sft_preflight import Plan, check

logger = logging.getLogger("vgr_rl.sft")

_WORKER = "vgr_rl.training.sft_worker"


def run(config: DictConfig) -> None:
    """Train, or continue to train, and export the last checkpoint to run_dir/model.

    Raises:
        ConfigError: the configuration, the data or the machine does not fit; nothing was written.
        SystemExit: the run was asked to end, and has saved; or a training process failed.
    """
    run_dir = Path(config.run_dir).resolve()
    environment.apply({**config.hardware.env, **_tracker_environment(run_dir), **_hub_environment(config)})
    with tempfile.TemporaryDirectory() as scratch:
        plan = check(config, Path(scratch))
        for line in plan.lines():
            logger.info("%s", line)
        if config.dry_run:
            return
        run_dir.mkdir(parents=True, exist_ok=True)
        _keep_converted_files(plan.config.data, Path(scratch), run_dir / "data")
    OmegaConf.save(plan.config, run_dir / "config.yaml", resolve=True)
    if plan.resume_step < plan.total_steps:
        _train_until_asked_to_end(plan, run_dir)
    _export(plan, run_dir)


def _keep_converted_files(data: DictConfig, scratch: Path, folder: Path) -> None:
    for key in ("train_files", "val_files"):
        for place, file in enumerate(data[key] or []):
            if Path(file).is_relative_to(scratch):
                kept = folder / Path(file).relative_to(scratch)
                kept.parent.mkdir(parents=True, exist_ok=True)
                data[key][place] = str(shutil.move(file, kept))


def _train_until_asked_to_end(plan: Plan, run_dir: Path) -> None:
    stop.forget(run_dir)
    try:
        with stop.on_signals(run_dir) as received:
            _train(plan, run_dir)
    except stop.Stopped as error:
        stop.forget(run_dir)
        logger.info("%s; the same command goes on from there", error.args[0])
        sys.exit(received.exit_code)


def _train(plan: Plan, run_dir: Path) -> None:
    if plan.processes > 1:
        os.environ["VGR_SFT_CONFIG"] = str(run_dir / "config.yaml")
        _torchrun(plan, run_dir)
        return
    from vgr_rl.training import sft_worker

    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port()))
    resolved = OmegaConf.create(OmegaConf.to_container(plan.config, resolve=True))
    sft_worker.train(resolved)  # type: ignore[arg-type]


def _torchrun(plan: Plan, run_dir: Path) -> None:
    trainer, launch = plan.config.trainer, plan.config.launch
    arguments = [f"--nproc_per_node={trainer.n_gpus_per_node}"]
    if trainer.nnodes == 1:
        arguments += ["--standalone"]
    else:
        arguments += [f"--nnodes={trainer.nnodes}", f"--node_rank={launch.node_rank}"]
        arguments += ["--rdzv_backend=c10d", f"--rdzv_endpoint={launch.rendezvous}", "--rdzv_id=vgr_rl_sft"]
    command = [sys.executable, "-m", "torch.distributed.run", *arguments, "-m", _WORKER]
    # in a session of its own: torchrun ends its processes at once when it, or they, get a signal
    process = subprocess.Popen(command, start_new_session=True)
    try:
        if process.wait() != 0:
            sys.exit(f"a training process failed, see above and {run_dir}/train_*.log")
    finally:
        process.terminate()
        process.wait()
    saved = complete(run_dir / "checkpoints")
    if (last := step_of(saved[-1]) if saved else 0) < plan.total_steps:
        raise stop.Stopped(f"stopped by {stop.requested(run_dir) or 'another machine'} after step {last}")


def _export(plan: Plan, run_dir: Path) -> None:
    if plan.config.launch.node_rank != 0:
        return
    checkpoint = run_dir / "checkpoints" / f"global_step_{plan.total_steps}"
    command = [sys.executable, "-m", "vgr_rl.merge", str(checkpoint), str(run_dir / "model")]
    # In a process of its own: training patched the model's classes in this one.
    finished = subprocess.run([*command, f"--dtype={plan.export_dtype}", "--overwrite"], check=False)
    if finished.returncode != 0:
        raise RuntimeError(f"{checkpoint} could not be exported, see above; repeat with `{' '.join(command[1:])}`")
    logger.info("done: model in %s/model, curves in %s/metrics.jsonl", run_dir, run_dir)


def _tracker_environment(run_dir: Path) -> dict[str, str]:
    environment_ = {
        "TENSORBOARD_DIR": str(run_dir / "tensorboard"),
        "WANDB_DIR": str(run_dir),
        "WANDB_SILENT": "true",
    }
    return environment_ if wandb_logged_in() else {**environment_, "WANDB_MODE": "offline"}


def _hub_environment(config: DictConfig) -> dict[str, str]:
    return {"HF_HUB_OFFLINE": "1"} if Path(config.model.path).expanduser().is_dir() else {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
