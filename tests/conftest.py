import os
from pathlib import Path

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, not whether the code is right.
# 50 examples a property keep the unit tests under a minute; scripts/fuzz_rewards.py goes deeper.
settings.register_profile("any_machine", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_machine")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any test imports torch: tiny tensors gain nothing from threads
if not Path("/dev/nvidia0").exists():  # before any test imports verl, which asks for its platform once
    os.environ.setdefault("VERL_PLATFORM", "cpu")
