"""One pass of the vision tower for each distinct image of a micro-batch.

The rollouts of a group show the same images. Their image embeddings are equal, and so is what the gradient needs, so
the tower may run on the distinct images and its output be repeated: hooks on the tower do both, and the model around
it sees what it would have seen. Exact, also in the gradient (repeating sums the gradients of the copies).
"""

from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from vgr_rl.training import shared_features


class VisionSharing:
    """Resolves references of rollouts to vision inputs and repeats the vision tower's output to match."""

    def __init__(self, model: torch.nn.Module):
        """Hook the vision tower of a Qwen-VL model (a submodule called `visual`); models without one are left alone."""
        self._features: dict[str, dict[str, torch.Tensor]] = {}
        self._rows: list[int] | None = None
        self._unique_grid: torch.Tensor | None = None
        self._merge: int = 1
        self._handles: list[RemovableHandle] = []
        for name, tower in model.named_modules():
            if name.split(".")[-1] == "visual":
                self._merge = int(tower.spatial_merge_size)
                self._handles.append(tower.register_forward_pre_hook(self._before, with_kwargs=True))
                self._handles.append(tower.register_forward_hook(self._after))
                return

    def resolve(self, inputs: list[Any], device: torch.device) -> list[dict[str, torch.Tensor]]:
        """Return the vision inputs of the rows of a micro-batch.

        A row with a reference gets the image grid of its prompt; only the first row of a prompt also gets the pixels.
        Rows without a reference are returned as they are.
        """
        uids = [shared_features.referred_uid(each) for each in inputs]
        self._rows = self._unique_grid = None
        if None in uids and any(uids):  # padding rows of verl are text only and carry an empty dictionary
            assert not any(_data(each) for each, uid in zip(inputs, uids, strict=True) if uid is None)
        if not any(uids):
            return [_data(each) for each in inputs]
        self._fetch([uid for uid in uids if uid])
        return self._without_repeats(uids, device)

    def _fetch(self, uids: list[str]) -> None:
        missing = [uid for uid in dict.fromkeys(uids) if uid not in self._features]
        if missing:
            self._features.update(shared_features.get(missing))

    def forget(self) -> None:
        """Drop the fetched inputs; called when a pass over a batch is over."""
        self._features.clear()

    def _without_repeats(self, uids: list[str | None], device: torch.device) -> list[dict[str, torch.Tensor]]:
        first_image: dict[str, int] = {}
        rows: list[int] = []
        grids: list[torch.Tensor] = []
        resolved: list[dict[str, torch.Tensor]] = []
        images = 0
        for uid in uids:
            if uid is None:
                resolved.append({})
                continue
            features = self._features[uid]
            grid = features["image_grid_thw"].to(device)
            if uid in first_image:
                resolved.append({"image_grid_thw": grid})
            else:
                first_image[uid] = images
                images += len(grid)
                grids.append(grid)
                resolved.append({name: value.to(device) for name, value in features.items()})
            rows.extend(range(first_image[uid], first_image[uid] + len(grid)))
        self._unique_grid = torch.cat(grids)
        self._rows = rows if len(rows) > images else None
        return resolved

    def _before(self, tower: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._rows is None:
            return None
        if "grid_thw" in kwargs:
            return args, {**kwargs, "grid_thw": self._unique_grid}
        return (args[0], self._unique_grid, *args[2:]), kwargs

    def _after(self, tower: Any, args: tuple[Any, ...], output: Any) -> Any:
        if self._rows is None:
            return None
        assert self._unique_grid is not None
        lengths = (self._unique_grid.prod(-1) // self._merge**2).tolist()
        starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
        index = torch.cat([torch.arange(starts[row], starts[row + 1]) for row in self._rows])
        return _repeat(output, index)


def _repeat(output: Any, index: torch.Tensor) -> Any:
    if isinstance(output, torch.Tensor):
        return output[index.to(output.device)]
    if isinstance(output, list | tuple):
        return type(output)(_repeat(each, index) for each in output)
    output.pooler_output = _repeat(output.pooler_output, index)
    if getattr(output, "deepstack_features", None) is not None:
        output.deepstack_features = _repeat(output.deepstack_features, index)
    return output


def _data(value: Any) -> dict[str, torch.Tensor]:
    return getattr(value, "data", value)
