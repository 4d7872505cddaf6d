"""The Faust app factory and its agents. May import :mod:`streams`, :mod:`featurestore` and :mod:`models`."""
