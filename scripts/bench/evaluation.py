"""Compare the speed of evaluating a model with a loop of `generate`: prints both and exits 1 below 5 times as fast.

    python scripts/bench/evaluation.py [--items 400] [--json]

400 questions about coloured shapes are answered greedily by the shipped tiny model: by vLLM as `vgr_rl.evaluate` uses
it, and one by one by `generate` of transformers before, in one process, with one thread. Each decodes the images and
prepares the prompts. The limit is on sequences a second once both are ready; loading the model, and starting vLLM, are
shown beside it (the imports that both need are not), and how many responses are equal.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this file's folder would hide the package `rewards`

from rich.console import Console
from rich.table import Table

from vgr_rl.benchmarks.serve import ServedModel, Server, decode_image, prepare_environment
from vgr_rl.config.resolvers import asset_path
from vgr_rl.data.images import image_sizes
from vgr_rl.data.schema import Row
from vgr_rl.data.tiny_world import rl_rows

LIMIT = 5.0
NEW_TOKENS = 112  # as the tiny model is trained


class Measured(NamedTuple):
    """How long a tool takes to get ready and to answer, and what it answers, by question."""

    name: str
    start_s: float
    answer_s: float
    responses: dict[str, str]

    @property
    def rate(self) -> float:
        """Sequences a second once it is ready."""
        return len(self.responses) / self.answer_s

    @property
    def rate_with_start(self) -> float:
        """Sequences a second from the start of loading."""
        return len(self.responses) / (self.start_s + self.answer_s)


def main() -> None:
    """Run the command line entry."""
    parser = argparse.ArgumentParser(description="Compare evaluating through vLLM with a loop of generate.")
    parser.add_argument("--items", type=int, default=400, help="questions that each answers (400)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    prepare_environment()
    rows = list(rl_rows("heldout", options.items, 0))
    model = ServedModel.load(asset_path("base_qwen2_5_vl"))
    measured = loop, vllm = looped(model, rows), served(model, rows)
    ratio = vllm.rate / loop.rate
    equal = sum(loop.responses[key] == vllm.responses[key] for key in loop.responses) / len(rows)
    if options.json:
        described = {
            each.name: each._asdict() | {"rate": each.rate, "rate_with_start": each.rate_with_start, "responses": None}
            for each in measured
        }
        sys.stdout.write(json.dumps({**described, "ratio": ratio, "equal_responses": equal}, indent=1) + "\n")
    else:
        table = Table(f"{len(rows)} questions", "start, s", "answers, s", "sequences/s", "with the start")
        for each in measured:
            cells = (each.start_s, each.answer_s, each.rate, each.rate_with_start)
            table.add_row(each.name, *(f"{value:.1f}" for value in cells))
        console = Console()
        console.print(table)
        with_start = vllm.rate_with_start / loop.rate_with_start
        console.print(f"{ratio:.1f}x the sequences a second (limit {LIMIT:g}x), {with_start:.1f}x with the start")
        console.print(f"{equal:.1%} of the responses are equal")
    sys.exit(0 if ratio >= LIMIT else 1)


def served(model: ServedModel, rows: Sequence[Row]) -> Measured:
    """Answer with vLLM, as `vgr_rl.evaluate` does."""
    start = time.perf_counter()
    prompts = [model.prompt(row.sample.id, row.prompt, row.images, image_sizes(row, Path()), Path()) for row in rows]
    longest = max(prompt.length for prompt in prompts)
    server = Server(model, max_model_len=longest + NEW_TOKENS, concurrency=256)
    ready = time.perf_counter()
    responses = {}
    for response in server.stream(prompts, temperature=0.0, max_tokens=NEW_TOKENS, seed=0):
        responses[response.id] = response.text
    end = time.perf_counter()
    server.close()
    return Measured("vLLM", ready - start, end - ready, responses)


def looped(prepared: ServedModel, rows: Sequence[Row]) -> Measured:
    """Answer one by one with `generate` of transformers."""
    start = time.perf_counter()
    from transformers import AutoModelForImageTextToText

    model: Any = AutoModelForImageTextToText.from_pretrained(prepared.path).eval()
    ready = time.perf_counter()
    responses = {}
    for row in rows:
        parts = [{"type": "image"}, {"type": "text", "text": row.prompt[-1]["content"].removeprefix("<image>")}]
        chat = [{"role": "user", "content": parts}]
        text = prepared.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        inputs = prepared.processor(
            text=[text + prepared.prefill], images=[decode_image(row.images[0], Path())], return_tensors="pt"
        )
        banned = list(prepared.banned_token_ids)
        output = model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS, suppress_tokens=banned)
        written = output[0, inputs["input_ids"].shape[1] :]
        responses[row.sample.id] = prepared.processor.tokenizer.decode(written, skip_special_tokens=True)
    return Measured("generate", ready - start, time.perf_counter() - ready, responses)


if __name__ == "__main__":
    main()
