"""OmegaConf resolvers used in the configuration."""

from pathlib import Path

from omegaconf import OmegaConf


def asset_path(name: str) -> str:
    """Return the folder of a checkpoint that ships with the package (`vgr_rl/tiny/assets/<name>`)."""
    return str(Path(__file__).resolve().parents[1] / "tiny" / "assets" / name)


def register() -> None:
    """Register `${vgr.asset:NAME}`; safe to call again."""
    OmegaConf.register_new_resolver("vgr.asset", asset_path, replace=True)
