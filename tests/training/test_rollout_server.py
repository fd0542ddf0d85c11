"""The rollout server with a real engine and a real model, without Ray."""

import asyncio
from types import MethodType, SimpleNamespace

import pytest
import torch
from PIL import Image

from vgr_rl.tiny.model import build_model, build_processor, save_model
from vgr_rl.training.policy_mixin import ban_in_place
from vgr_rl.training.prompts import PromptEncoder
from vgr_rl.training.vision_tokens import banned_token_ids

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(torch.cuda.is_available(), reason="the in-process engine is for CPUs"),
]
FAMILY, N, MAX_TOKENS = "qwen2_5_vl", 3, 12


@pytest.fixture(scope="module")
def model():
    return build_model(FAMILY).eval()


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(model, FAMILY, folder)
    environment = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "TORCH_COMPILE_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(torch, "set_num_threads", torch.set_num_threads)  # vLLM replaces it for good
        server = start_server(folder)
        yield server
        asyncio.run(server.engine._call(cleanup_dist_env_and_memory))


def cleanup_dist_env_and_memory():
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


def start_server(folder):
    from vllm.engine.arg_utils import AsyncEngineArgs

    from vgr_rl.cpu.inproc_server import BLOCK_SIZE, InprocEngine, InprocServer

    args = AsyncEngineArgs(
        model=str(folder),
        dtype="float32",
        enforce_eager=True,
        max_model_len=256,
        max_num_seqs=16,
        block_size=BLOCK_SIZE,
        distributed_executor_backend="uni",
        logprobs_mode="processed_logprobs",
        worker_extension_cls="vgr_rl.cpu.vllm_worker.CpuWorkerExtension",
    )
    processor = build_processor(FAMILY)
    server = InprocServer.__new__(InprocServer)
    server.config = SimpleNamespace(max_model_len=256, response_length=MAX_TOKENS, ignore_eos=True)
    server.model_config = SimpleNamespace(lora_rank=0, lora={})
    server.global_steps, server._submission_paused, server._admitting = 7, False, 0

    async def start():
        engine = await InprocEngine.start(args.create_engine_config())
        await engine.collective_rpc(
            "monkey_patch_model",
            kwargs={"vocab_size": len(processor.tokenizer), "banned_token_ids": banned_token_ids(processor)},
        )
        return engine

    server.engine = asyncio.run(start())
    return server


def encode(model, sizes):
    processor = build_processor(FAMILY)
    processor.config = model.config
    for name in ("get_rope_index", "get_vision_position_ids"):
        setattr(processor, name, MethodType(getattr(type(model.model), name), processor))
    content = [{"type": "image"} for _ in sizes] + [{"type": "text", "text": "how many red squares are there"}]
    images = [Image.effect_noise(size, 90).convert("RGB") for size in sizes]
    encoder = PromptEncoder(processor, prefill="<think>", max_prompt_tokens=200)
    return encoder.encode([{"role": "user", "content": content}], images)


def generate(server, prompt, **sampling):
    request = {"temperature": 1.0, "logprobs": 0, **sampling}
    return asyncio.run(
        server.generate_group(
            token_ids=prompt.token_ids,
            features=prompt.features,
            image_ids=prompt.image_ids,
            n=N,
            sampling=request,
        )
    )


@pytest.mark.parametrize("sizes", [[], [(64, 64)], [(64, 96), (96, 64)]])
def test_log_probs_equal_the_policys_with_the_same_features_and_bans(server, model, sizes):
    prompt = encode(model, sizes)
    samples, version = generate(server, prompt)
    assert version == 7
    assert len({tuple(sample.token_ids) for sample in samples}) == N
    banned = banned_token_ids(build_processor(FAMILY))
    for sample in samples:
        assert len(sample.token_ids) == MAX_TOKENS and not set(sample.token_ids) & set(banned)
        ids = torch.tensor([prompt.token_ids + sample.token_ids])
        with torch.no_grad():
            types = (ids == model.config.image_token_id).int()
            logits = model(input_ids=ids, mm_token_type_ids=types, **prompt.features).logits[0]
        ban_in_place(logits, torch.tensor(banned), len(build_processor(FAMILY).tokenizer))
        log_probs = logits.log_softmax(-1)[len(prompt.token_ids) - 1 : -1]
        expected = log_probs.gather(1, torch.tensor(sample.token_ids).unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(torch.tensor(sample.log_probs), expected, atol=1e-3, rtol=1e-3)


def test_groups_in_flight_together_do_not_mix(server, model):
    prompts = [encode(model, [(64, 64 + 32 * i)]) for i in range(3)]
    alone = [generate(server, prompt, temperature=0.0)[0][0].token_ids for prompt in prompts]

    async def together():
        return await asyncio.gather(
            *[
                server.generate_group(
                    token_ids=prompt.token_ids,
                    features=prompt.features,
                    image_ids=prompt.image_ids,
                    n=N,
                    sampling={"temperature": 0.0, "logprobs": None},
                )
                for prompt in prompts
            ]
        )

    for expected, (samples, _) in zip(alone, asyncio.run(together()), strict=True):
        assert [sample.token_ids for sample in samples] == [expected] * N
        assert samples[0].log_probs is None


def test_a_seed_gives_each_completion_its_own_draws_whatever_else_is_under_way(server, model):
    prompt, other = encode(model, [(64, 64)]), encode(model, [])

    async def beside(seed):
        def group(prompt, **sampling):
            return server.generate_group(
                token_ids=prompt.token_ids, features=prompt.features, image_ids=prompt.image_ids, n=N,
                sampling={"temperature": 1.0, "logprobs": 0, **sampling},
            )  # fmt: skip

        # vLLM's CPU sampler heeds seeds only where all requests of a batch have one, as those of a run do
        _, (samples, _) = await asyncio.gather(group(other, seed=99), group(prompt, seed=seed))
        return samples

    def ids(samples):
        return [sample.token_ids for sample in samples]

    alone = ids(generate(server, prompt, seed=7)[0])
    assert ids(asyncio.run(beside(7))) == alone and len({tuple(each) for each in alone}) == N
    assert ids(generate(server, prompt, seed=8)[0])[:-1] == alone[1:]


def test_prompt_without_room_names_the_knob(server, model):
    prompt = encode(model, [])
    server.config.max_model_len = len(prompt.token_ids)
    try:
        with pytest.raises(ValueError, match="max_model_len=.* leaves no room behind a prompt of"):
            generate(server, prompt)
    finally:
        server.config.max_model_len = 256
