"""verl platform `cpu`: selected with VERL_PLATFORM=cpu, registered when this module is imported."""

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


class _CpuDeviceModule(types.ModuleType):
    """`torch.cpu` plus the functions of an accelerator module that verl calls and `torch.cpu` lacks."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)


def _resident_bytes(*_: Any, **__: Any) -> int:
    return psutil.Process().memory_info().rss


def _memory_info(*_: Any, **__: Any) -> tuple[int, int]:
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _device_module() -> types.ModuleType:
    module: Any = _CpuDeviceModule("torch_cpu_device")
    for name in (
        "empty_cache",
        "ipc_collect",
        "reset_peak_memory_stats",
        "reset_accumulated_memory_stats",
        "set_per_process_memory_fraction",
        "manual_seed",
        "manual_seed_all",
        "set_device",
    ):
        setattr(module, name, _nothing)
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        setattr(module, name, _resident_bytes)
    module.mem_get_info = _memory_info
    module.get_rng_state = torch.get_rng_state
    module.set_rng_state = torch.set_rng_state
    module.get_device_name = lambda *_: "CPU"
    module.device_count = lambda: 1
    module.current_device = lambda: "cpu"
    module.is_available = lambda: True
    return module


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """One logical device a process; Ray's resource "GPU" only counts process slots (`ray.init(num_gpus=N)`)."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _device_module()

    def is_available(self) -> bool:
        """Return True: there is always a CPU."""
        return True

    def current_device(self) -> torch.device:
        """Return the target of verl's `.to(...)` calls."""
        return torch.device("cpu")

    def device_count(self) -> int:
        """Return 1: a worker process is one device."""
        return 1

    def set_device(self, device_index: int) -> None:
        """Do nothing: there is one device."""

    def synchronize(self, device_index: int | None = None) -> None:
        """Do nothing: CPU kernels are synchronous."""

    def manual_seed(self, seed: int) -> None:
        """Seed torch's CPU generator."""
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        """Seed torch's CPU generator."""
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """Do nothing: the CPU allocator has no such settings."""

    def empty_cache(self) -> None:
        """Do nothing: the CPU allocator keeps no cache of ours."""

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        """Return no compute capability."""
        return None, None

    def communication_backend_name(self) -> str:
        """Return the process group backend."""
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """Return the variable Ray sets for its logical GPU resource."""
        return "CUDA_VISIBLE_DEVICES"

    @contextlib.contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        """Annotate nothing."""
        yield

    def profiler_start(self) -> None:
        """Do nothing: use py-spy on a CPU."""

    def profiler_stop(self) -> None:
        """Do nothing: use py-spy on a CPU."""

    def ray_resource_name(self) -> str:
        """Return the logical resource that counts worker slots."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        """Return the variables that keep Ray from hiding devices."""
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        """Return False: weights reach vLLM through shared memory."""
        return False

    def cudart(self) -> None:
        """Return None: no CUDA runtime."""
