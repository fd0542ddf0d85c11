"""vLLM worker extension for CPU rollouts (`rollout.engine_kwargs.vllm.worker_extension_cls`)."""

from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension


def _keep_plain_linear(layer: Any, remove_weight: bool) -> None:
    layer.cpu_linear = torch.nn.functional.linear


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """Keeps linear weights in place so that weight sync can copy into them.

    vLLM's CPU build packs them into oneDNN or AMX blobs after loading and replaces `layer.weight` by an empty
    parameter; `load_weights` then fails, or rollouts silently keep the old weights.
    """

    def __new__(cls, **kwargs: Any) -> "CpuWorkerExtension":
        """Switch the packing off before the model is loaded."""
        import vllm.model_executor.layers.utils as layer_utils

        layer_utils.dispatch_cpu_unquantized_gemm = _keep_plain_linear
        return super().__new__(cls, **kwargs)
