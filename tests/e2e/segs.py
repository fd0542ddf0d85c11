"""A reward that a model with random weights can raise: one for each `[SEG]`, whatever its mask."""

from rewards.score import Score
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace


def counts_segs(trace: Trace, sample: Sample) -> Score:
    return Score(float(trace.segs))
