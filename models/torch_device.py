"""Where training runs; this needs torch."""

from __future__ import annotations

import torch

from streams.errors import ModelError

__all__ = ["device_named"]


def device_named(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one, else the CPU. Raises ModelError for one not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {name!r}: expected auto, cpu, or cuda where there is one ({error})") from error
