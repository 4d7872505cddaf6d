"""The live pages: `streamlens dashboard` runs this with Streamlit."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboards.engineering_page import engineering_page
from dashboards.experiments_page import experiments_page
from dashboards.live import NoRun, current_live
from dashboards.panels import blank, style
from dashboards.production_page import production_page
from dashboards.recommendations_page import recommendations_page
from dashboards.run_bar import run_bar

__all__ = ["main"]


def main() -> None:
    st.set_page_config(page_title="StreamLens", page_icon=str(Path(__file__).parent / "icon.png"), layout="wide")
    style()
    page = st.navigation(
        [
            st.Page(
                production_page, title="Production", icon=":material/monitoring:", url_path="production", default=True
            ),
            st.Page(recommendations_page, title="Recommendations", icon=":material/movie:", url_path="recommendations"),
            st.Page(engineering_page, title="ML engineering", icon=":material/model_training:", url_path="engineering"),
            st.Page(experiments_page, title="Experiments", icon=":material/science:", url_path="experiments"),
        ],
        position="top",
    )
    run_bar()
    live = current_live()
    if isinstance(live, NoRun):
        if live.problem:
            blank("This run is not there", live.problem)
        else:
            blank(
                "No run yet",
                "These pages follow the run that is started last.",
                ["streamlens demo", "streamlens replay", "streamlens worker"],
            )
        return
    page.run()


main()
