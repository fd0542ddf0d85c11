"""Find a reward by its name, by `package.module:object` or by `path/to/file.py:object`."""

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

from rewards.accuracy import Accuracy
from rewards.dual_iou import DualIoU
from rewards.format import Format
from rewards.score import Reward

BUILT_IN: Mapping[str, Callable[..., Reward]] = {"accuracy": Accuracy, "dual_iou": DualIoU, "format": Format}


def load_reward(use: str, params: Mapping[str, Any], *, where: str = "reward") -> Reward:
    """Return the reward that `use` names: a class is called with `params`, a function has them bound.

    Args:
        use: a built-in name, `package.module:object` or `path/to/file.py:object` (relative to the working directory).
        params: keyword parameters.
        where: the config key, for error messages.

    Raises:
        ValueError: when nothing is found there, it is not callable, or it refuses the parameters. An error inside the
            user's own module while it is imported is passed on as it is.
    """
    found = _find(use, where)
    if not callable(found):
        raise ValueError(f"{where}.use={use!r} is a {type(found).__name__} but expected a function or a class")
    signature = inspect.signature(found)
    try:
        signature.bind(**params) if inspect.isclass(found) else signature.bind_partial(**params)
    except TypeError as error:
        accepted = ", ".join(signature.parameters) or "none"
        raise ValueError(f"{where}.params={dict(params)}: {error}; {use} takes {accepted}") from error
    if inspect.isclass(found):
        return cast(Reward, found(**params))
    return cast(Reward, functools.partial(found, **params) if params else found)


def _find(use: str, where: str) -> Any:
    if ":" not in use:
        if use not in BUILT_IN:
            raise ValueError(
                f"{where}.use={use!r} but expected one of {', '.join(sorted(BUILT_IN))}, "
                "package.module:object or path/to/file.py:object"
            )
        return BUILT_IN[use]
    place, _, name = use.rpartition(":")
    module = _module_of_file(Path(place), use, where) if place.endswith(".py") else _module(place, use, where)
    if not hasattr(module, name):
        raise ValueError(f"{where}.use={use!r} but {place} has no {name!r}")
    return getattr(module, name)


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
