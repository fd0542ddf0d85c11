"""Puts verl's own configuration on Hydra's search path without importing verl (its import takes seconds)."""

import importlib.util
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin


def verl_config_dir() -> Path:
    """Return the folder of verl's trainer configuration.

    Raises:
        ModuleNotFoundError: verl is not installed.
    """
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("verl is not installed in this environment: run `bash scripts/install.sh`")
    return Path(spec.submodule_search_locations[0]) / "trainer" / "config"


class VerlSearchPath(SearchPathPlugin):
    """Adds verl's configuration after ours, so that a group of ours can extend verl's file of the same group."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append verl's folder."""
        search_path.append(provider="verl", path=f"file://{verl_config_dir()}")


def register() -> None:
    """Make verl's configuration reachable for the Hydra app of this process."""
    Plugins.instance().register(VerlSearchPath)
