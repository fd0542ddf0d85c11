"""What is known about one question: its text, its true answer and its true boxes."""

from dataclasses import dataclass, field
from typing import Any, Literal

from vgr_rl.grounding.frames import Box, Size
from vgr_rl.grounding.masks import Rle

AnswerKind = Literal["choice", "open", "none"]
"""How the answer is graded: an option, free text, or not at all."""

Role = Literal["evidence", "answer"]
"""Whether a target is looked at while reasoning or is itself what is asked for."""


@dataclass(frozen=True, slots=True)
class Target:
    """One object of the ground truth.

    Attributes:
        box_orig_px: its box in pixels of the stored image, or None when only a mask is known.
        name: what the object is called, for people.
        role: whether it is evidence for the answer or the answer itself.
        mask_rle: its mask as COCO run lengths at the stored size, as `check_rle` returns it, or None.
    """

    box_orig_px: Box | None
    name: str = ""
    role: Role = "evidence"
    mask_rle: Rle | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One question about one image, without the pixels.

    The fields are taken as they are; rows from files are checked where they are read.

    Attributes:
        id: unique within its data set.
        data_source: name of the data set, for metrics.
        question: what the user asks, without options.
        answer: the true answer: a letter or option text for `choice`, free text for `open`, "" for `none`.
        answer_kind: how the answer is graded.
        options: texts of options A, B, C and so on; empty when open or when only the question's text has them.
        targets: the objects that a grounded answer has to point at.
        image_size: stored size, pixels.
        extra: whatever else the source says.
    """

    id: str
    data_source: str
    question: str
    answer: str
    answer_kind: AnswerKind
    options: tuple[str, ...]
    targets: tuple[Target, ...]
    image_size: Size
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def target_boxes(self) -> list[Box]:
        """The boxes of the targets that have one, of either role, in pixels of the stored image."""
        return [target.box_orig_px for target in self.targets if target.box_orig_px is not None]
