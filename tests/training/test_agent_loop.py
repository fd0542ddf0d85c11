import asyncio
import io
from types import MethodType, SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from vgr_rl.tiny.model import build_model, build_processor
from vgr_rl.training import agent_loop, shared_features
from vgr_rl.training.agent_loop import GroupAgentLoopWorker
from vgr_rl.training.dataset import EvidenceDataset
from vgr_rl.training.prompts import PromptEncoder
from vgr_rl.training.rollout_client import Completion

GROUP = 8


class Client:
    """Stands for the inference engine: completions of different lengths."""

    def __init__(self):
        self.prompts = []

    async def generate_group(self, prompt, n, sampling, priority=0):
        self.prompts.append((prompt, n, sampling))
        return [Completion([5] * (i + 1), [-0.5] * (i + 1), aborted=False) for i in range(n)], 3


class Store:
    """Stands for TransferQueue, whose server needs Ray."""

    def __init__(self):
        self.rows, self.tags = {}, {}

    async def async_kv_put(self, key, partition_id, tag):
        self.tags[partition_id, key] = tag

    async def async_kv_batch_put(self, keys, partition_id, fields, tags):
        self.tags |= {(partition_id, key): tag for key, tag in zip(keys, tags, strict=True)}
        self.rows |= {(partition_id, key): fields[i] for i, key in enumerate(keys)}


@pytest.fixture
def store(monkeypatch):
    store = Store()
    monkeypatch.setattr(agent_loop, "tq", store)
    monkeypatch.setattr(shared_features, "tq", store)
    return store


@pytest.fixture
def worker(monkeypatch, tmp_path):
    processor = build_processor("qwen2_5_vl")
    model = build_model("qwen2_5_vl").model
    processor.config = model.config
    for name in ("get_rope_index", "get_vision_position_ids"):
        setattr(processor, name, MethodType(getattr(type(model), name), processor))
    calls = []
    original = type(processor.image_processor).__call__
    monkeypatch.setattr(
        type(processor.image_processor), "__call__", lambda self, *a, **k: calls.append(1) or original(self, *a, **k)
    )
    worker = GroupAgentLoopWorker.__new__(GroupAgentLoopWorker)
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": -1}
    worker.rollout_config = SimpleNamespace(
        n=GROUP,
        calculate_log_probs=True,
        val_kwargs=SimpleNamespace(n=1, **sampling | {"temperature": 0.0}),
        **sampling,
    )
    worker.config = OmegaConf.create({"data": {}, "run_dir": str(tmp_path), "seed": 0, "seed_rollouts": False})
    worker._told = False
    worker._slots = asyncio.Semaphore(2)
    worker.dataset_cls, worker.llm_client, worker.reward_loop_worker_handles = EvidenceDataset, Client(), None
    worker._encoder = PromptEncoder(processor, prefill="<think>", max_prompt_tokens=256)
    worker.image_processor_calls = calls
    return worker


def row(uid="u"):
    picture = io.BytesIO()
    Image.effect_noise((64, 64), 60).convert("RGB").save(picture, "PNG")
    content = [{"type": "image", "image": {"bytes": picture.getvalue()}}, {"type": "text", "text": "how many"}]
    return {"uid": uid, "global_steps": 3, "raw_prompt": [{"role": "user", "content": content}], "data_source": "tiny"}


def test_a_group_of_eight_calls_the_image_processor_once(worker, store):
    asyncio.run(worker._run_group(row(), validate=False))
    assert store.tags["train", "u"] == {"status": "finished"}
    assert len(worker.image_processor_calls) == 1
    assert [n for _, n, _ in worker.llm_client.prompts] == [GROUP]


def test_rows_share_the_vision_inputs_of_their_prompt(worker, store):
    asyncio.run(worker._run_group(row(), validate=False))
    features = store.rows[shared_features.PARTITION, "u"]["features"]
    assert set(features) == {"pixel_values", "image_grid_thw"}
    for session in range(GROUP):
        stored = store.rows["train", f"u_{session}_0"]
        prompt, response = stored["prompts"], stored["responses"]
        assert shared_features.referred_uid(stored.get("multi_modal_inputs")) == "u"
        assert response.tolist() == [5] * (session + 1)
        assert torch.equal(stored["input_ids"], torch.cat([prompt, response]))
        assert stored["position_ids"].shape == (4, len(prompt) + len(response))
        assert stored["rollout_log_probs"].shape == stored["response_mask"].shape == response.shape
        assert "image" not in stored["raw_prompt"][0]["content"][0]
        assert store.tags["train", f"u_{session}_0"]["seq_len"] == len(prompt) + len(response)


def test_validation_samples_with_its_own_settings_and_stores_no_vision_inputs(worker, store):
    asyncio.run(worker._run_group(row(), validate=True))
    assert [(n, sampling["temperature"]) for _, n, sampling in worker.llm_client.prompts] == [(1, 0.0)]
    assert ("val", "u_0_0") in store.rows
    assert (shared_features.PARTITION, "u") not in store.rows


def test_rollouts_are_seeded_by_run_and_prompt_when_asked_for_and_those_of_validation_never(worker, store):
    for seed, uid in [(0, "step1-prompt0"), (0, "step1-prompt0"), (0, "step1-prompt1"), (1, "step1-prompt0")]:
        worker.config.update(seed=seed, seed_rollouts=True)
        asyncio.run(worker._run_group(row(uid), validate=False))
    asyncio.run(worker._run_group(row(), validate=True))
    worker.config.seed_rollouts = False
    asyncio.run(worker._run_group(row(), validate=False))
    first, again, *others = [sampling.get("seed") for _, _, sampling in worker.llm_client.prompts]
    assert first == again and len({first, *others}) == 4 and others[2:] == [None, None]
    assert all(abs(first - other) > GROUP for other in others[:2])


def test_a_group_that_cannot_be_encoded_is_reported_as_failed(worker, store, caplog, tmp_path):
    broken = row()
    broken["raw_prompt"][0]["content"][0]["image"] = {"bytes": b"no picture"}
    asyncio.run(worker._run_group(broken, validate=False))
    assert store.tags["train", "u"] == {"status": "failure"}
    assert "rollout group u of tiny failed" in caplog.text
    asyncio.run(worker._run_group(broken, validate=False))
    (event,) = (tmp_path / "events.jsonl").read_text().splitlines()  # the first failure is enough for a person
    assert "rollout group u of tiny failed: UnidentifiedImageError" in event
    assert not store.rows


def test_only_so_many_prompts_hold_their_images_at_a_time(worker, store, monkeypatch):
    held, most = set(), []
    decode = worker._images

    async def noted(messages):
        held.add(id(messages))
        most.append(len(held))
        return await decode(messages)

    async def sampled(prompt, n, sampling, priority=0):
        await asyncio.sleep(0.02)
        return [Completion([5], [-0.5], aborted=False)] * n, 3

    async def stored(uid, features, *_):
        held.pop()

    monkeypatch.setattr(worker, "_images", noted)
    monkeypatch.setattr(worker.llm_client, "generate_group", sampled)
    monkeypatch.setattr(shared_features, "put", stored)

    async def all_at_once():
        await asyncio.gather(*[worker._run_group(row(f"u{i}"), validate=False) for i in range(8)])

    asyncio.run(all_at_once())
    assert max(most) == 2 and len(most) == 8
    assert {tag["status"] for (_, key), tag in store.tags.items() if "_" not in key} == {"finished"}
