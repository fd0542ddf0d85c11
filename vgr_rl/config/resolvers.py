"""OmegaConf resolvers used in the configuration."""

import textwrap
from pathlib import Path

from omegaconf import OmegaConf

from vgr_rl.config.recipes import list_recipes


def asset_path(name: str) -> str:
    """Return the folder of a checkpoint that ships with the package (`vgr_rl/tiny/assets/<name>`)."""
    return str(Path(__file__).resolve().parents[1] / "tiny" / "assets" / name)


def own_keys(*files: str) -> str:
    """Return the keys of our configuration files with their comments, for `--help`; Hydra itself drops comments.

    The keys of a group's file, such as `model/tiny_qwen2_5_vl.yaml`, are put under the group's name.
    """
    return "\n\n".join(map(_keys_of, files)).replace("$", "$$")  # Hydra's help is a string.Template


def _keys_of(file: str) -> str:
    text = (Path(__file__).parent / file).read_text()
    text = text[text.index("\n\n") :].partition("\nhydra:")[0].strip()  # without the file's heading and defaults
    group = Path(file).parent.name
    if group in ("", "sft", "evaluation"):
        return text
    return f"{group}:  # of {file}\n\n{textwrap.indent(text, '  ')}"


def recipe_names(entry: str) -> str:
    """Return the recipes of an entry, for `--help`."""
    return ", ".join(list_recipes(entry))


def register() -> None:
    """Register `${vgr.asset:NAME}`, `${vgr.own_keys:FILE,…}` and `${vgr.recipes:ENTRY}`; safe to call again."""
    OmegaConf.register_new_resolver("vgr.asset", asset_path, replace=True)
    OmegaConf.register_new_resolver("vgr.own_keys", own_keys, replace=True)
    OmegaConf.register_new_resolver("vgr.recipes", recipe_names, replace=True)
