"""Our rewards as one of TRL's `reward_funcs` (GRPOTrainer and its relatives; tested with TRL 1.16).

TRL understands a response without a score: it gets no advantage, and its group is normalised over the rest. That
holds for the only reward function of a trainer: beside a second one, a missing score counts as 0. So give TRL one
function with all terms in it, not one for each term.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rewards.adapters.batch import COLUMN, as_reward_sets, grade_column, rewards_at
from rewards.compose import Composed, Composer, RewardSets

Completion = str | Sequence[Mapping[str, Any]]
"""A response as TRL hands it over: text, or the messages of a chat."""


class TRLReward:
    """A reward function for `GRPOTrainer(reward_funcs=...)`.

    A score is None, never 0, when a term failed or when no term applies to the sample. Schedules follow the state of
    the trainer, and the parts are logged with the trainer's metrics.

    Args:
        rewards: a preset's name, the path of a YAML file, or the rewards themselves.
        column: the data column with the sample.
        name: what TRL's metrics call this function.

    Raises:
        ValueError: when the rewards cannot be found.

    Example:
        >>> sample = {"answer": "A", "answer_kind": "choice", "image_size": [64, 48], "targets": []}
        >>> reward = TRLReward("treevgr")
        >>> reward(prompts=["?"], completions=["<think>so</think><answer>A</answer>"], sample=[sample])
        [2.0]
    """

    def __init__(
        self, rewards: RewardSets | Composer | str = "treevgr", *, column: str = COLUMN, name: str = "evidence"
    ) -> None:
        self.rewards = as_reward_sets(rewards)
        self.column = column
        self.__name__ = name

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        *,
        trainer_state: Any = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Grade a batch; raises ValueError when the data column is missing or a sample cannot be read."""
        rewards = rewards_at(self.rewards, trainer_state)
        grades = grade_column(rewards, columns, self.column, [completion_text(c) for c in completions])
        if log_metric is not None:
            self._log(grades, log_metric)
        return [graded.value if graded.status == "ok" else None for graded in grades]

    def _log(self, grades: Sequence[Composed], log_metric: Callable[[str, float], None]) -> None:
        for part in dict.fromkeys(part for graded in grades for part in graded.parts):
            values = [graded.parts[part] for graded in grades if part in graded.parts]
            log_metric(f"{self.__name__}/{part}", fmean(values))
        log_metric(f"{self.__name__}/failed_rate", fmean(graded.status == "failed" for graded in grades))


def completion_text(completion: Completion) -> str:
    """Return the text that the model wrote, of a plain or a conversational response."""
    if isinstance(completion, str):
        return completion
    return "".join(_message_text(message) for message in completion if message.get("role", "assistant") == "assistant")


def _message_text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(block.get("text") or "" for block in content)
