from __future__ import annotations

from tests.featurestore.conftest import build_store

__all__ = ["build_store"]
