"""Checks on checkpoint files before anything is loaded: do the weights fit the config, can a run be resumed."""

import json
import math
from pathlib import Path
from typing import Any

from vgr_rl.errors import ConfigError
from vgr_rl.training.checkpoint_manifest import complete, fault_of, newest_sound, step_of
from vgr_rl.training.model_spec import ModelSpec

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
# What must agree between a checkpoint and the model that it is loaded into.
_SHAPE_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "depth")


def check_weights(path: str, spec: ModelSpec) -> str:
    """Check that a local checkpoint's weights are those its config.json describes, and return their number type.

    Hugging Face's loader only warns when weights are missing and goes on with random ones. A hub id is not checked.

    Raises:
        ConfigError: no safetensors in the folder, or another number of parameters than the architecture has.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return "bfloat16"
    headers = [safetensors_header(file) for file in sorted(folder.glob("*.safetensors"))]
    tensors = {name: entry for header in headers for name, entry in header.items()}
    if not tensors:
        raise ConfigError(f"model.path={path} holds no .safetensors file; save the model in that format")
    stored = sum(math.prod(entry["shape"]) for entry in tensors.values())
    expected = _parameters(folder)
    if stored not in expected:
        raise ConfigError(
            f"model.path={path} holds weights with {stored:,} parameters but its config.json describes a "
            f"{spec.architecture} with {min(expected):,}: the weights are of another architecture"
        )
    largest = max(tensors.values(), key=lambda entry: math.prod(entry["shape"]))
    return _DTYPES.get(largest["dtype"], "bfloat16")


def safetensors_header(file: Path) -> dict[str, dict[str, Any]]:
    """Return name -> {dtype, shape, data_offsets} of a safetensors file without reading its tensors."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    header.pop("__metadata__", None)
    return header


def resume_point(trainer: Any) -> Path | None:
    """Return the checkpoint that a run starts from by verl's `trainer.resume_mode`, None to start anew.

    It is the newest one of the run that is complete and undamaged. `trainer.resume_from_path` is for a run that has
    none yet: the same command given again does not go back to it. A checkpoint of the run itself can be named when no
    later one is in the way.

    Raises:
        ConfigError: an unknown mode, a path that is no checkpoint, or checkpoints in the way of a new start.
    """
    checkpoints, path = Path(trainer.default_local_dir), trainer.resume_from_path
    if trainer.resume_mode == "disable":
        if complete(checkpoints):
            raise ConfigError(f"{checkpoints} holds checkpoints but trainer.resume_mode=disable; set another run_dir")
        return None
    if trainer.resume_mode not in ("auto", "resume_path"):
        raise ConfigError(f"trainer.resume_mode={trainer.resume_mode} but expected auto, disable or resume_path")
    if path is not None:
        return _named(Path(path), checkpoints)
    if trainer.resume_mode == "resume_path":
        raise ConfigError("trainer.resume_mode=resume_path needs trainer.resume_from_path")
    return newest_sound(checkpoints)


def _named(path: Path, checkpoints: Path) -> Path:
    inside = path.resolve().parent == checkpoints.resolve()
    if not inside and (own := newest_sound(checkpoints)) is not None:
        return own
    if not path.is_dir() or not step_of(path):
        raise ConfigError(f"trainer.resume_from_path={path} is no folder called global_step_N")
    if (fault := fault_of(path)) is not None:
        raise ConfigError(f"trainer.resume_from_path={path} {fault}")
    later = [folder for folder in complete(checkpoints) if inside and step_of(folder) > step_of(path)]
    if sound := [folder.name for folder in later if fault_of(folder) is None]:
        raise ConfigError(
            f"trainer.resume_from_path={path} but {checkpoints} holds later checkpoints ({', '.join(sound)}): go on "
            "from these without that path, move them away, or set another run_dir"
        )
    return path


def start_from(trainer: Any, checkpoint: Path | None) -> None:
    """Set verl's keys so that a run starts from this checkpoint, or anew; verl takes the last one, sound or not."""
    trainer.resume_mode = "disable" if checkpoint is None else "resume_path"
    trainer.resume_from_path = None if checkpoint is None else str(checkpoint)


def check_resume(checkpoint: Path, spec: ModelSpec, total_steps: int) -> None:
    """Check that a checkpoint can be loaded into the model of this run.

    Raises:
        ConfigError: another architecture, or more steps than the run has.
    """
    step = step_of(checkpoint)
    if step > total_steps:
        raise ConfigError(
            f"{checkpoint} is at step {step} but this run ends at {total_steps}; raise trainer.total_epochs, "
            "or set another run_dir"
        )
    config = json.loads((checkpoint / "huggingface" / "config.json").read_text())
    theirs, ours = {"model_type": config["model_type"], **_shapes(config)}, _own_shapes(spec)
    different = [
        f"{key} {theirs[key]} against {ours[key]}" for key in theirs if key in ours and theirs[key] != ours[key]
    ]
    if different:
        raise ConfigError(
            f"{checkpoint} is a checkpoint of another architecture than model.path={spec.path}: "
            f"{', '.join(different)}; set another run_dir or model.path"
        )


def check_processes(checkpoint: Path, processes: int) -> None:
    """Check that a run goes on with as many processes as before, where each has a share that only it can load.

    That is so in a cold start, which saves where each process is in the data, and in GRPO without FSDP2.

    Raises:
        ConfigError: another number of processes.
    """
    saved = json.loads((checkpoint / "fsdp_config.json").read_text())["world_size"]
    if saved != processes:
        raise ConfigError(
            f"{checkpoint} was written by {saved} processes but this run has {processes}; set "
            f"trainer.n_gpus_per_node={saved}, or merge it (python -m vgr_rl.merge) and start from that model"
        )


def _own_shapes(spec: ModelSpec) -> dict[str, Any]:
    return {"model_type": spec.model_type, **_shapes(spec.hf_config)}


def _shapes(config: dict[str, Any]) -> dict[str, Any]:
    config = config.get("vlm_config", config)  # of R-Sa2VA
    parts = {"text": config.get("text_config", config), "vision": config.get("vision_config", {})}
    return {f"{name} {key}": part[key] for name, part in parts.items() for key in _SHAPE_KEYS if key in part}


def _parameters(folder: Path) -> set[int]:
    """Return the numbers of parameters that a checkpoint of this config may hold (tied weights once or twice)."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    buffers = model.state_dict().keys() & dict(model.named_buffers())
    total = sum(tensor.numel() for tensor in [*model.parameters(), *map(model.get_buffer, buffers)])
    head = model.get_output_embeddings().weight.numel()
    return {total, total + head} if model.config.tie_word_embeddings else {total}
