"""Benchmarks behind ``streamlens bench NAME``: each module of that name has ``run(events=N) -> dict``.

Machines are shared and noisy, so what is compared is compared within one run, in turns, each in a fresh process.
"""
