"""Hydra config source `recipes://ENTRY`: the group `recipe`, found in the repository's recipes/ and in ./recipes/.

`recipe=NAME` is `recipes/NAME/ENTRY.yaml` (ENTRY: sft, grpo or evaluate), or else `recipes/NAME.yaml`. A recipe sets
keys of the root, as if its header were `# @package _global_`, and may override groups in its own `defaults`. An entry
calls `register` before Hydra starts and has in its primary config

    hydra: {searchpath: [recipes://sft]}
    defaults: [..., _self_, recipe: tiny]

Unknown names give Hydra's own error, which lists those that exist.
"""

from pathlib import Path

from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

ENTRIES = ("sft", "grpo", "evaluate")
GROUP = "recipe"


def recipe_roots() -> tuple[Path, ...]:
    """Return the folders that are searched, first match wins: the repository's recipes/, then ./recipes/."""
    roots = (Path(__file__).resolve().parents[2] / "recipes", Path.cwd() / "recipes")
    return tuple(dict.fromkeys(roots))


def find_recipe(name: str, entry: str) -> Path | None:
    """Return the file of recipe `name` for `entry`, or None when there is none.

    Example: `("tiny", "sft")` gives recipes/tiny/sft.yaml, `("tiny/mine", "sft")` gives recipes/tiny/mine.yaml.
    """
    name = name.removesuffix(".yaml")
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    for root in recipe_roots():
        for path in (root / name / f"{entry}.yaml", root / f"{name}.yaml"):
            if path.is_file():
                return path
    return None


def list_recipes(entry: str) -> list[str]:
    """Return the sorted names that `find_recipe` answers for `entry`."""
    names: set[str] = set()
    for root in recipe_roots():
        for path in root.rglob("*.yaml"):
            relative = path.relative_to(root).with_suffix("")
            if relative.name == entry and relative.parent != Path("."):
                names.add(relative.parent.as_posix())
            elif relative.name not in ENTRIES:
                names.add(relative.as_posix())
    return sorted(names)


class RecipeSource(ConfigSource):
    """The config group `recipe` for one entry; the entry is the path of the source (`recipes://sft`)."""

    @staticmethod
    def scheme() -> str:
        """Return the URL scheme of the search path."""
        return "recipes"

    def available(self) -> bool:
        """Return whether the entry is one that has recipes."""
        return self.path in ENTRIES

    def _find(self, config_path: str) -> Path | None:
        group, _, name = config_path.partition("/")
        return find_recipe(name, self.path) if group == GROUP else None

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the recipe's YAML, packaged at the root of the config."""
        file = self._find(config_path)
        if file is None:
            raise ConfigLoadError(f"{config_path} is no recipe of `{self.path}`; there are {list_recipes(self.path)}")
        config = OmegaConf.load(file)
        header: dict[str, str | None] = {"package": "_global_"}
        return ConfigResult(config=config, path=self.full_path(), provider=self.provider, header=header)

    def is_group(self, config_path: str) -> bool:
        """Return whether the path is the group itself or a folder of recipes in it."""
        group, _, folder = config_path.strip("/").partition("/")
        inside = any((root / folder).is_dir() for root in recipe_roots()) and ".." not in Path(folder).parts
        return group == "" or (group == GROUP and inside)

    def is_config(self, config_path: str) -> bool:
        """Return whether the path is a recipe of the entry."""
        return self._find(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return the group's name at the root, and every recipe (also `folder/name`) inside the group."""
        if config_path.strip("/") == "":
            return [] if results_filter == ObjectType.CONFIG else [GROUP]
        if config_path.strip("/") != GROUP or results_filter == ObjectType.GROUP:
            return []
        return list_recipes(self.path)


def register() -> None:
    """Make `recipes://` known to Hydra; safe to call again."""
    Plugins.instance().register(RecipeSource)
