"""Ready-made sums of rewards, by the name that configs and commands give them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rewards.compose import RewardSets

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "treevgr": {"accuracy": {}, "format": {}, "dual_iou": {}},
    "vrt": {"seg_format": {}, "mask_iou": {}},
}
"""The rewards of TreeVGR (arXiv 2507.07999) and VRT (arXiv 2512.05091) as `reward.terms`, weight 1 each."""

_BASE_DEFAULTS: tuple[object, ...] = (None, [], ["reward", "_self_"])


def load_rewards(name: str | Path) -> RewardSets:
    """Return the rewards that a preset or a YAML file describes.

    Args:
        name: a name in `PRESETS`, or the path of a file with `terms` and, if wanted, `by_source`, as in
            `RewardSets.from_config`. The reward files of our recipes are such files.

    Raises:
        ValueError: when there is no such preset or file, or the file does not describe rewards.

    Example:
        >>> [term.name for term in load_rewards("treevgr").default.terms]
        ['accuracy', 'format', 'dual_iou']
    """
    if name in PRESETS:
        return RewardSets.from_config(PRESETS[str(name)])
    path = Path(name).expanduser()
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        missing = f"there is no file {path}" if path.suffix in (".yaml", ".yml") else "that is no preset"
        raise ValueError(f"rewards={str(name)!r} but {missing}; expected {', '.join(PRESETS)} or a file FILE.yaml")
    config = _read_yaml(path)
    try:
        return RewardSets.from_config(config["terms"], config.get("by_source"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(config, Mapping) or not isinstance(config.get("terms"), Mapping | list):
        raise ValueError(f"{path} has no `terms`; expected terms: {{name: {{use, weight, params}}}}")
    if unknown := sorted(map(str, set(config) - {"defaults", "terms", "by_source"})):
        raise ValueError(f"{path} has the key {unknown[0]!r} but expected terms and by_source")
    if config.get("defaults") not in _BASE_DEFAULTS or "${" in json.dumps(config, default=str):
        raise ValueError(
            f"{path} builds on other files (`defaults` or ${{…}}), which only Hydra resolves; write all terms out"
        )
    return config
