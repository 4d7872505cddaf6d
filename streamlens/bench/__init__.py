"""Benchmarks behind ``streamlens bench NAME``: each module has ``run(...) -> dict`` and measures in this checkout.

Machines are shared and noisy, so what is compared is compared within one run, in turns, each in a fresh process.
"""

from __future__ import annotations

__all__ = ["BENCHMARKS"]

BENCHMARKS = ("pipeline", "replay", "latency", "store", "memory")
"""The module names, in the order in which ``streamlens bench`` lists them."""
