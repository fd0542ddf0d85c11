import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rewards import Composer, Score, Term
from rewards.adapters.trl import TRLReward, completion_text
from tests.rewards.examples import RIGHT, SAMPLE, WRONG
from vgr_rl.grounding import Sample, Trace


class Countdown:
    """Fails every fourth response; the others are worth their turn."""

    def __init__(self) -> None:
        self.turn = -1

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        self.turn += 1
        if self.turn % 4 == 2:
            return Score.failed("the judge is down")
        return Score(float(self.turn % 4), {"turn": float(self.turn % 4)})


def countdown() -> Composer:
    return Composer((Term("countdown", Countdown()),))


def test_plain_and_conversational_completions_are_graded() -> None:
    chat = [{"role": "assistant", "content": RIGHT}]
    blocks = [{"role": "assistant", "content": [{"type": "text", "text": RIGHT}]}]
    rewards = TRLReward()(prompts=["?"] * 4, completions=[RIGHT, WRONG, chat, blocks], sample=[SAMPLE] * 4)
    assert rewards == [2.5, 1.0, 2.5, 2.5]


def test_what_a_tool_says_is_not_the_model_s() -> None:
    turns = [
        {"role": "assistant", "content": "a"},
        {"role": "tool", "content": "<answer>B</answer>"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": "b"},
    ]
    assert completion_text(turns) == "ab"


def test_a_failed_score_is_none_and_parts_are_logged() -> None:
    logged: dict[str, float] = {}
    rewards = TRLReward(countdown(), name="mine")(
        prompts=["?"] * 4, completions=[RIGHT] * 4, sample=[SAMPLE] * 4, log_metric=logged.__setitem__
    )
    assert rewards == [0.0, 1.0, None, 3.0]
    assert logged == {"mine/turn": pytest.approx(4 / 3), "mine/failed_rate": 0.25}


def test_a_sample_without_anything_to_grade_is_none() -> None:
    sample = {"answer_kind": "none", "image_size": [9, 9], "targets": []}
    composer = Composer.from_config({"accuracy": {}, "dual_iou": {}})
    assert TRLReward(composer)(prompts=["?"], completions=[RIGHT], sample=[sample]) == [None]


def test_the_trainer_s_state_drives_schedules() -> None:
    class Ramp:
        def __init__(self, level: float = -1.0) -> None:
            self.level = level

        def __call__(self, trace: Trace, sample: Sample) -> Score:
            return Score(self.level)

        def at(self, progress: float) -> "Ramp":
            return Ramp(progress)

    reward = TRLReward(Composer((Term("ramp", Ramp()),)))
    for step, steps, value in ((0, 8, 0.0), (2, 8, 0.25), (9, 8, 1.0), (2, -1, -1.0), (2, 0, -1.0)):
        state = SimpleNamespace(global_step=step, max_steps=steps)
        assert reward(prompts=["?"], completions=[""], sample=[SAMPLE], trainer_state=state) == [value]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [None]}, r"no column 'sample' \(it has image\).*column=NAME"),
        ({"sample": [{"answer": "B"}]}, r"sample\[0\]: image_size=None"),
        ({"sample": ["{"]}, r"sample\[0\]: "),
        ({"sample": ["3"]}, r"sample\[0\]: is a int but expected an object"),
        ({"sample": [SAMPLE, SAMPLE]}, "2 samples for 1 responses"),
    ],
)
def test_data_that_cannot_be_read_stops_the_run(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TRLReward()(prompts=["?"], completions=[RIGHT], **columns)


@pytest.mark.slow
def test_a_trainer_s_step_leaves_failed_responses_out_of_their_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    import datasets
    import tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    words = ["<pad>", "<eos>", "?", "red", "</think>", "<answer>", "B", "</answer>"]
    model_of_words = tokenizers.models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="?")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(model_of_words), pad_token="<pad>", eos_token="<eos>"
    )
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    before = model.lm_head.weight.detach().clone()
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=TRLReward(countdown()),
        args=GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=4,
            max_steps=1,
            learning_rate=0.1,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_list([{"prompt": "?", "sample": SAMPLE}] * 8),
        processing_class=tokenizer,
    )
    trainer.train()
    rewards, advantages = list(trainer._logs["rewards"]["evidence"]), list(trainer._logs["advantages"])
    assert [math.isnan(reward) for reward in rewards] == [False, False, True, False] * 2
    mean, std = 4 / 3, math.sqrt(((0 - 4 / 3) ** 2 + (1 - 4 / 3) ** 2 + (3 - 4 / 3) ** 2) / 2)
    expected = [(0 - mean) / std, (1 - mean) / std, 0.0, (3 - mean) / std] * 2
    assert advantages == pytest.approx(expected, abs=1e-3)
    logged = trainer.state.log_history[0]
    assert logged["evidence/failed_rate"] == 0.25
    assert logged["rewards/evidence/mean"] == pytest.approx(mean)
    assert not before.equal(model.lm_head.weight)
