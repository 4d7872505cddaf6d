"""ML engineering: which model serves, what it is worth beside others, what it lives on, and having it trained anew."""

from __future__ import annotations

import streamlit as st

from dashboards.importance_panel import importance_panel
from dashboards.retrain_panel import requests_panel, retrain_form
from dashboards.runs_panel import runs_panel
from dashboards.versions_panel import comparison_panel, trail_panel, versions_panel

__all__ = ["engineering_page"]


def engineering_page() -> None:
    versions_panel()
    left, right = st.columns([1, 1], gap="small")
    with left:
        retrain_form()
    with right:
        requests_panel()
    comparison_panel()
    importance_panel()
    runs_panel()
    trail_panel()
