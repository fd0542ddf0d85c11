"""Train the tiny base model that the project ships, from random weights, and measure it on held-out scenes.

Run it as `OMP_NUM_THREADS=1 python scripts/make_tiny_base.py --family F --out vgr_rl/tiny/assets/base_F`.
Plain PyTorch on purpose: a base is made once, and needs neither Ray nor a rollout engine. What learns from it does.
"""

import argparse
import contextlib
import importlib
import logging
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F

from rewards.accuracy import Accuracy
from rewards.dual_iou import DualIoU
from rewards.format import Format
from scripts.tiny_training import Learner, add_arguments, write_record
from vgr_rl.data.tiny_world import GEOMETRY, to_sample
from vgr_rl.grounding.frames import model_frame
from vgr_rl.grounding.trace import parse_trace
from vgr_rl.tiny.model import Family, build_model, build_processor, check_family, save_model
from vgr_rl.tiny.tokenizer import build_tokenizer
from vgr_rl.tiny.traces import LabelNoise, write_trace
from vgr_rl.tiny.world import SIDE, Scene, generate, render, scene_at

logger = logging.getLogger("make_tiny_base")

CHUNK_BATCHES = 10  # batches drawn at once and sorted by length, so that little is padded
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Example:
    """One tokenised sample: token ids of the prompt and of the response (end of turn included)."""

    scene: Scene
    prompt_ids: list[int]
    response_ids: list[int]


def prompt_of(processor: Any, scene: Scene) -> str:
    """Render the chat prompt of a scene up to the assistant's turn, with one image placeholder."""
    content = [{"type": "image"}, {"type": "text", "text": scene.question_with_options}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )


def pixels_of(processor: Any, scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """Paint and patchify scenes: pixel_values [patches, channels x 2 x 8 x 8] and image_grid_thw [scenes, 3]."""
    images = [torch.from_numpy(render(scene)).permute(2, 0, 1) for scene in scenes]
    return dict(processor.image_processor(images=images, return_tensors="pt"))


def examples(processor: Any, family: Family, seed: int) -> Iterator[Example]:
    """Yield fresh samples of the `base` split for ever."""
    # A tokenizer of its own: a processor that was called with padding leaves it switched on in its backend.
    tokenizer, frame, rng, index = build_tokenizer(), model_frame(family), random.Random(f"base/{seed}"), 0
    tokens_per_image = (SIDE // (processor.image_processor.patch_size * processor.image_processor.merge_size)) ** 2
    while True:
        scene = scene_at("base", index, seed)
        index += 1
        response = write_trace(scene, GEOMETRY, frame, LabelNoise(), rng) + tokenizer.eos_token
        prompt = prompt_of(processor, scene).replace("<|image_pad|>", "<|image_pad|>" * tokens_per_image)
        encodings = tokenizer.backend_tokenizer.encode_batch_fast([prompt, response])
        assert not any(tokenizer.pad_token_id in encoding.ids for encoding in encodings), "nothing is padded"
        yield Example(scene, *(encoding.ids for encoding in encodings))


def batches(stream: Iterator[Example], size: int, seed: int) -> Iterator[list[Example]]:
    """Group a stream into batches of similar length, in random order within a chunk."""
    rng = random.Random(f"batches/{seed}")
    while True:
        chunk = sorted(
            (next(stream) for _ in range(size * CHUNK_BATCHES)), key=lambda e: len(e.prompt_ids) + len(e.response_ids)
        )
        groups = [chunk[start : start + size] for start in range(0, len(chunk), size)]
        rng.shuffle(groups)
        yield from groups


def collate(processor: Any, batch: list[Example], image_token_id: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Pad on the right; labels [batch, length] cover the response only."""
    length = max(len(e.prompt_ids) + len(e.response_ids) for e in batch)
    input_ids = torch.full((len(batch), length), processor.tokenizer.pad_token_id)
    labels = torch.full((len(batch), length), IGNORED)
    mask = torch.zeros_like(input_ids)
    for row, example in enumerate(batch):
        prompt, response = example.prompt_ids, example.response_ids
        end = len(prompt) + len(response)
        input_ids[row, :end] = torch.tensor(prompt + response)
        labels[row, len(prompt) : end] = torch.tensor(response)
        mask[row, :end] = 1
    inputs = {
        "input_ids": input_ids,
        "attention_mask": mask,
        "mm_token_type_ids": (input_ids == image_token_id).long(),
        **pixels_of(processor, [e.scene for e in batch]),
    }
    return inputs, labels


def _linear_patch_embed(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    weight = self.proj.weight
    return F.linear(hidden_states.reshape(-1, weight[0].numel()), weight.flatten(1), self.proj.bias)


def _batched_vision_attention(
    self: Any, hidden_states: torch.Tensor, cu_seqlens: torch.Tensor, position_embeddings: Any = None, **_: Any
) -> torch.Tensor:
    patches, images = hidden_states.shape[0], len(cu_seqlens) - 1
    query, key, value = self.qkv(hidden_states).reshape(patches, 3, self.num_heads, -1).permute(1, 0, 2, 3).unbind(0)
    module = importlib.import_module(type(self).__module__)
    query, key = module.apply_rotary_pos_emb_vision(query, key, *position_embeddings)
    query, key, value = (t.reshape(images, -1, *t.shape[1:]).transpose(1, 2) for t in (query, key, value))
    weights = torch.softmax((query @ key.transpose(-1, -2)) * self.scaling, dim=-1)
    return self.proj((weights @ value).transpose(1, 2).reshape(patches, -1))


@contextlib.contextmanager
def fast_on_cpu(family: Family) -> Iterator[None]:
    """Swap two modules for forms that are equal and faster here: Conv3d by a product, images of one size in a batch."""
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    embed = module.Qwen2_5_VisionPatchEmbed if family == "qwen2_5_vl" else module.Qwen3VLVisionPatchEmbed
    attention = module.Qwen2_5_VLVisionAttention if family == "qwen2_5_vl" else module.Qwen3VLVisionAttention
    with (
        mock.patch.object(embed, "forward", _linear_patch_embed),
        mock.patch.object(attention, "forward", _batched_vision_attention),
    ):
        yield


def train(model: Any, processor: Any, family: Family, args: argparse.Namespace) -> None:
    """Minimise cross entropy on the responses: AdamW, linear warm-up, cosine to a twentieth."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), fused=True)
    learner = Learner(optimizer, args, warmup=20)
    stream = batches(examples(processor, family, args.seed), args.batch, args.seed)
    model.train()
    with fast_on_cpu(family):
        for step in range(args.steps):
            inputs, labels = collate(processor, next(stream), model.config.image_token_id)
            hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
            wanted = labels[:, 1:] != IGNORED
            loss = F.cross_entropy(model.lm_head(hidden[wanted]), labels[:, 1:][wanted])
            learner.learn(loss)
            if args.evaluate_every and (step + 1) % args.evaluate_every == 0:
                logger.info("step %d %s", step + 1, evaluate(model, processor, family, 200))
                save_model(model, family, args.out)
                model.train()


@torch.no_grad()
def evaluate(model: Any, processor: Any, family: Family, count: int, batch: int = 100) -> dict[str, float]:
    """Greedy decoding by `generate`, prefilled with `<think>`, on the first `count` scenes of the held-out split."""
    model.eval()
    frame, scenes = model_frame(family), list(generate("heldout", count))
    processor.tokenizer.padding_side = "left"
    totals: dict[str, float] = {}
    for start in range(0, count, batch):
        group = scenes[start : start + batch]
        texts = generate_greedy(model, processor, group)
        for scene, text in zip(group, texts, strict=True):
            trace = parse_trace(text, GEOMETRY, frame)
            for reward in (Accuracy(), Format(), DualIoU()):
                for name, value in reward(trace, to_sample(scene)).parts.items():
                    totals[name] = totals.get(name, 0.0) + value / count
    processor.tokenizer.padding_side = "right"
    return {name: round(value, 4) for name, value in totals.items()}


@torch.no_grad()
def generate_greedy(model: Any, processor: Any, scenes: list[Scene], prefill: str = "<think>") -> list[str]:
    """Decode greedily with Hugging Face `generate`; the responses lack the prefill."""
    from PIL import Image

    prompts = [prompt_of(processor, scene) + prefill for scene in scenes]
    images = [Image.fromarray(render(scene)) for scene in scenes]
    inputs = processor(text=prompts, images=images, padding=True, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=120, do_sample=False)
    return processor.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", type=check_family, required=True, help="qwen2_5_vl or qwen3_vl")
    parser.add_argument(
        "--init", type=Path, help="model folder to go on from, with another --seed; random weights without"
    )
    add_arguments(parser, steps=5500)
    parser.add_argument("--evaluate-every", type=int, default=0, help="steps between two short measurements; 0: none")
    return parser.parse_args()


def main() -> None:
    """Train, measure, save."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    args = parse_args()
    model, processor = build_model(args.family, args.seed), build_processor(args.family)
    if args.init is not None:
        model.load_state_dict(type(model).from_pretrained(args.init).state_dict())
    start = time.process_time()
    train(model, processor, args.family, args)
    seconds = time.process_time() - start
    save_model(model, args.family, args.out)
    result = evaluate(model, processor, args.family, args.heldout)
    write_record(args, seconds, {f"greedy_on_{args.heldout}_heldout": result})


if __name__ == "__main__":
    main()
