import doctest
import importlib
import pkgutil

import pytest

import rewards
import vgr_rl.grounding
from rewards.load import BUILT_IN, find_reward

MODULES = [
    info.name
    for package in (rewards, vgr_rl.grounding)
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not info.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_reward_has_an_example(name: str) -> None:
    assert ">>> " in (find_reward(name).__doc__ or "")
