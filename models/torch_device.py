"""Where training runs."""

from __future__ import annotations

from streams.errors import ModelError

__all__ = ["device_named"]


def device_named(name: str) -> str:
    """The device of that name; "auto" is CUDA where there is one, else the CPU. Raises ModelError for one not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.empty(0, device=name).device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {name!r}: expected auto, cpu, or cuda where there is one ({error})") from error
