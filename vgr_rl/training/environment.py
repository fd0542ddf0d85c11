"""The environment variables of a run, set before torch, Ray, verl or vLLM are imported."""

import os
from collections.abc import Mapping


def apply(env: Mapping[str, str]) -> dict[str, str]:
    """Set the variables that are not set yet and return the values in force, for Ray's runtime environment.

    Ray's workers inherit the driver's environment on a local cluster only; on an existing cluster they get the
    returned mapping.
    """
    for name, value in env.items():
        os.environ.setdefault(name, str(value))
    return {name: os.environ[name] for name in env}
