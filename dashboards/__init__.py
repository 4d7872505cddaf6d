"""The live Streamlit pages. May import :mod:`streams`, :mod:`featurestore` and :mod:`models`.

``app``, ``*_page`` and ``*_panel`` draw, with ``panels`` and ``charts``; what they draw is computed without Streamlit:

- ``*_figures``: from what ``subscriber`` (into ``live_records``) and ``store_probe`` hold in memory
- ``recommender``: lists, with reasons; ``feature_importance``: what the champion lives on
- ``registry_view``: who serves now, and who will
- ``publishing``: ratings, requests and replayed dead letters of people who use the pages

``live`` is what a process has once, ``launch`` starts Streamlit on it (docs/pages.md).
"""
