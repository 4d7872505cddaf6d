"""The live Streamlit pages. May import :mod:`streams`, :mod:`featurestore` and :mod:`models`.

``app`` and ``*_page`` draw; what they draw is computed in ``*_figures``, without Streamlit, from what ``subscriber``
and ``store_probe`` hold in memory (docs/pages.md).
"""
