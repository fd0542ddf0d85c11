"""Lets a CUDA build of torchvision be imported beside a CPU-only torch.

PyPI's torchvision wheel cannot load its compiled operators without libtorch_cuda. torchvision tolerates that, but
`torchvision/_meta_registrations.py` then registers fake kernels for two operators whose schemas are missing, and the
import fails. Declaring the schemas is enough: image transforms work, calling one of the two operators still raises.

The wheel installs this file as the top-level module `_vgr_rl_torchvision`, next to a .pth that imports it, so that
every interpreter of the environment has it, also those that Ray and vLLM spawn before any code of ours runs. It
imports nothing but the standard library, and does nothing when torch has CUDA or ROCm or when torchvision found its
operators.
"""

import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

_NEEDS_SCHEMAS = "torchvision._meta_registrations"
_SCHEMA = "{}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")
_libraries: list[object] = []  # torch drops the schemas when the library object dies


def _declare_missing_operators() -> None:
    torch, extension = sys.modules["torch"], sys.modules["torchvision.extension"]
    if torch.version.cuda or torch.version.hip or extension._has_ops():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
        library.define(_SCHEMA.format(operator))
    _libraries.append(library)


class _BeforeMetaRegistrations:
    """Acts at the moment torchvision is about to register its fake kernels; finds nothing itself."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name == _NEEDS_SCHEMAS:
            _declare_missing_operators()
        return None


sys.meta_path.insert(0, _BeforeMetaRegistrations)
