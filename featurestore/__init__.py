"""Event-time features that follow the stream with exactly-once effect. May import :mod:`streams`."""
