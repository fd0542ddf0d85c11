from dataclasses import dataclass

import pytest

from rewards import Score
from rewards.describe import Parameter, describe
from rewards.load import BUILT_IN, load_reward
from vgr_rl.grounding import Sample, Trace


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_reward_says_what_it_is_and_what_each_parameter_means(name: str) -> None:
    description = describe(name)
    assert len(description.text) > 40
    for parameter in description.parameters:
        assert parameter.meaning, f"{name}.{parameter.name} has no line in the docstring's Args"
        assert parameter.default is not None, "a built-in reward works without parameters"
    assert callable(load_reward(name, {}))


def half(trace: Trace, sample: Sample, scale: float, power: int = 2) -> Score:
    """Give half.

    Part `half` is it.

    Args:
        trace: a response.
        scale: how much
            half is.
    """
    return Score(scale**power)


@dataclass
class Bare:
    level: float = 1.0

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        return Score(self.level)


def test_a_user_s_function_is_described_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewards.half", half, raising=False)
    monkeypatch.setattr("rewards.Bare", Bare, raising=False)
    description = describe("rewards.half")
    assert description.text == "Give half.\n\nPart `half` is it."
    assert description.parameters == (Parameter("scale", None, "how much half is."), Parameter("power", "2", ""))
    assert describe("rewards.Bare").parameters == (Parameter("level", "1.0", ""),)
