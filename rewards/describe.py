"""What a reward's own docstring and signature say about it, for `python -m rewards list`."""

import inspect
import re
from dataclasses import dataclass

from rewards.load import find_reward

_SECTION = re.compile(r"^(Args|Attributes|Example|Examples|Raises|Returns):$", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+): ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a reward.

    Attributes:
        name: the key in `params`.
        default: its default as Python writes it; None when it has to be given.
        meaning: what the docstring says about it.
    """

    name: str
    default: str | None
    meaning: str


@dataclass(frozen=True, slots=True)
class Description:
    """What a reward is.

    Attributes:
        name: the name that `use` gives it.
        text: the docstring up to its first section: what is graded, and what the parts are.
        parameters: in the order of the signature.
        example: the docstring's example, "" without one.
    """

    name: str
    text: str
    parameters: tuple[Parameter, ...]
    example: str


def describe(name: str) -> Description:
    """Describe the reward that `use: name` finds.

    Raises:
        ValueError: when there is none.

    Example:
        >>> describe("accuracy").parameters[0].name
        'max_answer_chars'
    """
    reward = find_reward(name)
    sections = _sections(inspect.getdoc(reward) or "")
    meanings = _entries(sections.get("Args", ""))
    parameters = [
        Parameter(
            parameter.name,
            None if parameter.default is parameter.empty else repr(parameter.default),
            meanings.get(parameter.name, ""),
        )
        for parameter in inspect.signature(reward).parameters.values()
        if parameter.name not in ("trace", "sample")  # of a plain function, what every reward is called with
    ]
    return Description(name, sections[""], tuple(parameters), inspect.cleandoc(sections.get("Example", "")))


def _sections(docstring: str) -> dict[str, str]:
    """Split a Google-style docstring at its headings; what comes before the first has the key ""."""
    text, *rest = _SECTION.split(docstring)
    return {"": text.strip(), **dict(zip(rest[::2], rest[1::2], strict=True))}


def _entries(section: str) -> dict[str, str]:
    """Read `name: meaning` entries whose meanings may go on over indented lines."""
    _, *rest = _ENTRY.split(section)
    return {name: " ".join(meaning.split()) for name, meaning in zip(rest[::2], rest[1::2], strict=True)}
