"""Prompts for a vision-language model, and their responses from vLLM, one by one as they finish."""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgr_rl.grounding import Frame, ResizeRule, Size, model_frame
from vgr_rl.training.model_spec import is_local
from vgr_rl.training.vision_tokens import banned_token_ids

if TYPE_CHECKING:
    from PIL.Image import Image
    from vllm import SamplingParams

log = logging.getLogger(__name__)

_CHATTY_LOGGERS = ("vllm.v1.worker.cpu_worker", "vllm.v1.engine.input_processor")  # a warning for every prompt
_CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "TORCH_COMPILE_DISABLE": "1",
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question for the model.

    Attributes:
        id: unique within a call.
        token_ids: the prompt with one placeholder token an image, ending with the prefill.
        images: what `decode_image` reads, in order of the placeholders; decoded when the prompt is sent.
        folder: what relative image paths start from.
        length: tokens of the prompt after every image took its place.
    """

    id: str
    token_ids: list[int]
    images: tuple[Mapping[str, Any], ...]
    folder: Path
    length: int


@dataclass(frozen=True, slots=True)
class Response:
    """What the model wrote after the prefill: text without special tokens; length with the end token, None: unknown."""

    id: str
    text: str
    length: int | None
    truncated: bool


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model folder's processor and what evaluation must know about it."""

    path: str
    processor: Any
    frame: Frame
    resize: ResizeRule
    context: int
    banned_token_ids: tuple[int, ...]
    prefill: str

    @classmethod
    def load(
        cls,
        path: str,
        *,
        frame: Frame | None = None,
        prefill: str = "<think>",
        processor_kwargs: Mapping[str, Any] | None = None,
    ) -> "ServedModel":
        """Read configuration and processor of a Hugging Face model folder or hub id; loads no weights.

        Args:
            path: local folder or hub id.
            frame: the frame of the boxes that the model writes; None: what its family declares.
            prefill: text put after the generation prompt.
            processor_kwargs: passed to the processor here and inside vLLM (`min_pixels`, `max_pixels`).

        Raises:
            ValueError: when the folder holds no model, or the family's frame is unknown.
        """
        if is_local(path) and not (Path(path) / "config.json").is_file():
            hint = f", such as {merged}" if (merged := Path(path) / "model").is_dir() else ""
            raise ValueError(f"model={path} has no config.json; give a Hugging Face folder (a merged checkpoint){hint}")
        from transformers import AutoConfig, AutoProcessor

        try:
            config = AutoConfig.from_pretrained(path)
            processor = AutoProcessor.from_pretrained(path, **(processor_kwargs or {}))
        except OSError as error:
            raise ValueError(f"model={path} is neither a model folder nor a reachable hub id: {error}") from error
        return cls(
            path=path,
            processor=processor,
            frame=frame or model_frame(config.model_type),
            resize=ResizeRule.from_image_processor(processor.image_processor),
            context=int(config.get_text_config().max_position_embeddings),
            banned_token_ids=tuple(banned_token_ids(processor)),
            prefill=prefill,
        )

    def prompt(
        self,
        sample_id: str,
        messages: Iterable[Mapping[str, str]],
        images: Iterable[Mapping[str, Any]],
        image_sizes: Sequence[Size],
        folder: Path,
    ) -> Prompt:
        """Build the prompt that training uses: the chat template, its generation prompt, then the prefill.

        Args:
            sample_id: id of the sample.
            messages: role and content; each `<image>` in a content stands for the next image.
            images: `{bytes, path}` of each image.
            image_sizes: stored size of each image, pixels.
            folder: what relative image paths start from.

        Raises:
            ValueError: when the number of `<image>` and of images differ.
        """
        images = tuple(images)
        assert len(image_sizes) == len(images)
        turns = list(messages)
        contents = [_content_parts(turn["content"]) for turn in turns]
        places = sum(part["type"] == "image" for content in contents for part in content)
        if places != len(images):
            raise ValueError(f"sample {sample_id}: {places} `<image>` in its prompt but {len(images)} in `images`")
        chat = [{"role": turn["role"], "content": parts} for turn, parts in zip(turns, contents, strict=True)]
        text = self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        token_ids = self._tokenize(text) + self._tokenize(self.prefill)
        extra = sum(self.resize.image_tokens(size) - 1 for size in image_sizes)
        return Prompt(sample_id, token_ids, images, folder, len(token_ids) + extra)

    def _tokenize(self, text: str) -> list[int]:
        return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def decode_image(image: Mapping[str, Any], folder: Path) -> "Image":
    """Return an upright RGB picture from its encoded `bytes`, or from its `path` (relative to `folder`).

    Raises:
        ValueError: when neither can be read as a picture.
    """
    from vgr_rl.data import images

    try:
        return images.decode_image({"bytes": image.get("bytes"), "path": folder / str(image.get("path"))})
    except OSError as error:
        raise ValueError(f"image {image.get('path') or 'in the column images'} cannot be read: {error}") from error


def prepare_environment() -> None:
    """Set what vLLM needs before its import; what is already set stays."""
    import torch

    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if not torch.cuda.is_available():
        for name, value in _CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)  # more wait for one another, and several times as long beside other work


class Server:
    """A vLLM engine in this process that answers prompts as a stream.

    Args:
        model: the model to serve.
        max_model_len: longest prompt plus response, tokens.
        concurrency: prompts in flight; at most this many images are decoded at a time.
        max_images: most images of one prompt.
        engine_kwargs: further arguments of `vllm.LLM`, over our defaults.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        max_model_len: int,
        concurrency: int,
        max_images: int = 1,
        engine_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        prepare_environment()
        import torch
        from vllm import LLM

        for name in _CHATTY_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        on_gpu = torch.cuda.is_available()
        defaults = {
            "dtype": "bfloat16" if on_gpu else "float32",
            "enforce_eager": not on_gpu,
            "generation_config": "vllm",
            "use_tqdm_on_load": False,
            "limit_mm_per_prompt": {"image": max_images, "video": 0},
            "max_num_seqs": concurrency,
            "max_num_batched_tokens": max(8192, max_model_len),
            "enable_chunked_prefill": on_gpu,  # vLLM 0.27 fails on a seeded request split over two steps on CPU
        }
        self._model = model
        self._concurrency = concurrency
        self._llm = LLM(model.path, max_model_len=max_model_len, **{**defaults, **(engine_kwargs or {})})

    def stream(
        self, prompts: Iterable[Prompt], *, temperature: float, max_tokens: int, seed: int, **sampling: Any
    ) -> Iterator[Response]:
        """Yield responses in the order in which they finish.

        Sampling is seeded for each prompt from `seed` and the prompt's id: neither the order of the prompts nor what
        else is in flight changes what is drawn.

        Raises:
            ValueError: when the processor expands an image to another number of tokens than the resize rule says.
        """
        engine = self._llm.llm_engine
        waiting = iter(prompts)
        in_flight: dict[str, Prompt] = {}
        while True:
            while len(in_flight) < self._concurrency and (prompt := next(waiting, None)) is not None:
                params = self._sampling(temperature, max_tokens, prompt_seed(seed, prompt.id), sampling)
                self._send(prompt, params)
                in_flight[prompt.id] = prompt
            if not in_flight:
                return
            for output in engine.step():
                if output.finished:
                    yield self._response(output, in_flight.pop(output.request_id))

    def close(self) -> None:
        """Free the engine's memory; the server answers no more."""
        import gc

        import torch

        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _send(self, prompt: Prompt, params: "SamplingParams") -> None:
        content: dict[str, Any] = {"prompt_token_ids": prompt.token_ids}
        if prompt.images:
            try:
                content["multi_modal_data"] = {"image": [decode_image(i, prompt.folder) for i in prompt.images]}
            except ValueError as error:
                raise ValueError(f"sample {prompt.id}: {error}") from error
        self._llm.llm_engine.add_request(prompt.id, content, params)

    def _response(self, output: Any, prompt: Prompt) -> Response:
        if len(output.prompt_token_ids) != prompt.length:
            raise ValueError(
                f"sample {prompt.id}: vLLM's prompt has {len(output.prompt_token_ids)} tokens but the resize rule says "
                f"{prompt.length}; boxes would be scored in the wrong frame: check image_size in the data and the "
                "processor of the model"
            )
        completion = output.outputs[0]
        token_ids = list(completion.token_ids)
        text = self._model.processor.tokenizer.decode(token_ids, skip_special_tokens=True)
        return Response(prompt.id, text, len(token_ids), completion.finish_reason == "length")

    def _sampling(self, temperature: float, max_tokens: int, seed: int, extra: Mapping[str, Any]) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            output_kind=RequestOutputKind.FINAL_ONLY,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed if temperature > 0 else None,
            logit_bias={token_id: -100.0 for token_id in self._model.banned_token_ids},
            detokenize=False,  # vLLM's incremental decoder drops an unfinished last character
            **extra,
        )


def prompt_seed(seed: int, prompt_id: str) -> int:
    """Return the sampling seed of one prompt."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{prompt_id}".encode()).digest()[:4], "big")


def _content_parts(content: str) -> list[dict[str, str]]:
    pieces = (piece for piece in re.split("(<image>)", content) if piece)
    return [{"type": "image"} if piece == "<image>" else {"type": "text", "text": piece} for piece in pieces]
