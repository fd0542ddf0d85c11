"""What can be known about SAM2 servers before they start."""

from pathlib import Path

from omegaconf import DictConfig

from vgr_rl.training.model_spec import is_local


def check_segmenter(config: DictConfig) -> list[str]:
    """Return what does not fit in `segmenter.*`."""
    given = config.segmenter
    if given.model is None:
        return []
    problems = []
    if is_local(given.model) and not (Path(given.model).expanduser() / "config.json").is_file():
        problems.append(f"segmenter.model={given.model} but there is no config.json in that folder")
    if given.servers < 1:
        problems.append(f"segmenter.servers={given.servers} but at least 1 is expected")
    if not 0 <= given.gpus <= 1:
        problems.append(
            f"segmenter.gpus={given.gpus:g} but 0 (the CPU) to 1 is expected: a server computes on one device; raise "
            "segmenter.servers to use more GPUs"
        )
    return problems


def segmenter_gpus(config: DictConfig) -> int:
    """Return how many GPUs the servers take: a server lies on one, whole."""
    given = config.segmenter
    if given.model is None or given.gpus == 0:
        return 0
    return -(-int(given.servers) // servers_together(given.gpus))


def servers_together(gpus: float) -> int:
    """Return how many servers share a GPU; one on the CPU shares with none."""
    return max(1, int(1 / gpus)) if gpus else 1
