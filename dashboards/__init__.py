"""The live Streamlit pages. May import :mod:`streams`, :mod:`featurestore` and :mod:`models`."""
