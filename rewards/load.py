"""Find a reward by its name, by `package.module.object` or by `path/to/file.py:object`."""

import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from rewards.score import Reward

BUILT_IN: Mapping[str, str] = {
    "accuracy": "rewards.accuracy:Accuracy",
    "box_valid": "rewards.box_valid:BoxValid",
    "dual_iou": "rewards.dual_iou:DualIoU",
    "dual_mask_iou": "rewards.mask_iou:DualMaskIoU",
    "format": "rewards.format:Format",
    "length": "rewards.length:Length",
    "mask_iou": "rewards.mask_iou:VRTMaskIoU",
    "mean_ap": "rewards.mean_ap:MeanAP",
    "multi_object": "rewards.multi_object:MultiObject",
    "no_repeat": "rewards.no_repeat:NoRepeat",
    "seg_format": "rewards.format:SegFormat",
}
"""Where each reward of this package is, by the name that `use` gives it; imported when it is used."""


def load_reward(use: str, params: Mapping[str, Any], *, where: str = "reward") -> Reward:
    """Return the reward that `use` names: a class is called with `params`, a function has them bound.

    Args:
        use: a name in `BUILT_IN`, `package.module.object`, `package.module:object` or `path/to/file.py:object`
            (relative to the working directory).
        params: keyword parameters.
        where: the config key, for error messages.

    Raises:
        ValueError: when nothing is found there, it is not callable, or it refuses the parameters: an unknown or a
            missing one, a `bool` that is none, or whatever makes the class raise. An error inside the user's own module
            while it is imported is passed on as it is.
    """
    found = find_reward(use, where=where)
    signature = inspect.signature(found)
    try:
        signature.bind(*(() if inspect.isclass(found) else ("trace", "sample")), **params)
    except TypeError as error:
        accepted = ", ".join(signature.parameters) or "none"
        raise ValueError(f"{where}.params={dict(params)}: {error}; {use} takes {accepted}") from error
    for name, value in params.items():
        parameter = signature.parameters.get(name)
        if parameter and parameter.annotation in (bool, "bool") and not isinstance(value, bool):
            raise ValueError(f"{where}.params.{name}={value!r} but expected true or false")
    if not inspect.isclass(found):
        return cast(Reward, functools.partial(found, **params) if params else found)
    try:
        return cast(Reward, found(**params))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}.params={dict(params)}: {error}") from error


def find_reward(use: str, *, where: str = "reward") -> Callable[..., Any]:
    """Return the class or function that `use` names, as `load_reward` finds it, without calling it.

    Raises:
        ValueError: when nothing is found there or it is not callable.
    """
    path = BUILT_IN.get(use, use)
    separator = ":" if ":" in path else "."
    place, _, name = path.rpartition(separator)
    if path.endswith(".py"):
        raise ValueError(f"{where}.use={use!r} but expected an object in that file, {use}:object")
    if not (place.endswith(".py") or all(map(str.isidentifier, place.split(".")))):
        raise ValueError(
            f"{where}.use={use!r} but expected one of {', '.join(sorted(BUILT_IN))}, "
            "package.module.object or path/to/file.py:object"
        )
    module = _module_of_file(Path(place), use, where) if place.endswith(".py") else _module(place, use, where)
    if not hasattr(module, name):
        raise ValueError(f"{where}.use={use!r} but {place} has no {name!r}")
    found = getattr(module, name)
    if not callable(found):
        raise ValueError(f"{where}.use={use!r} is a {type(found).__name__} but expected a function or a class")
    return cast(Callable[..., Any], found)


def _module(name: str, use: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, but something that it imports is not
        raise ValueError(f"{where}.use={use!r} but there is no module {error.name!r}") from error


def _module_of_file(path: Path, use: str, where: str) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise ValueError(f"{where}.use={use!r} but there is no file {path}")
    name = f"vgr_reward_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, f"{path} ends in .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in the file look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
