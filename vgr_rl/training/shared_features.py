"""Vision inputs of a prompt, stored once in TransferQueue and referred to by the rollouts of its group.

verl stores a copy with every rollout. Here a rollout's `multi_modal_inputs` field is a reference to the prompt's uid,
and the engine fetches what its rows refer to: host memory and transfers do not grow with the group.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import transfer_queue as tq
from tensordict import NonTensorStack, TensorDict

PARTITION = "prompt_features"
PICTURES = "prompt_pictures"
"""The pictures of prompts as SAM2 takes them: {"picture": uint8 [3, side, side], "size": (width, height)}."""

_FIELD = "features"
_REFERENCE = "prompt_uid"


def reference(uid: str) -> dict[str, str]:
    """Return what a rollout carries in place of the vision inputs of the prompt `uid`."""
    return {_REFERENCE: uid}


def referred_uid(multi_modal_inputs: Any) -> str | None:
    """Return the prompt uid that a `multi_modal_inputs` value refers to, or None when it is not a reference."""
    value = getattr(multi_modal_inputs, "data", multi_modal_inputs)
    return value.get(_REFERENCE) if isinstance(value, Mapping) else None


async def put(uid: str, features: Mapping[str, Any], partition: str = PARTITION) -> None:
    """Store the vision inputs of a prompt."""
    fields = TensorDict({_FIELD: NonTensorStack(dict(features))}, batch_size=[1])
    await tq.async_kv_batch_put(keys=[uid], partition_id=partition, fields=fields, tags=[{}])


def get(uids: Iterable[str], partition: str = PARTITION) -> dict[str, dict[str, Any]]:
    """Fetch the vision inputs of prompts by uid."""
    keys = list(uids)
    data = tq.kv_batch_get(keys=keys, partition_id=partition, select_fields=[_FIELD])
    return dict(zip(keys, list(data[_FIELD]), strict=True))


def clear(*partitions: str) -> None:
    """Drop what these partitions hold of all prompts; by default the vision inputs."""
    for partition in partitions or (PARTITION,):
        keys = list((tq.kv_list(partition) or {}).get(partition, {}))
        if keys:
            tq.kv_clear(keys=keys, partition_id=partition)
