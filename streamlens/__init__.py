"""The front door: command line, settings and wiring. May import every other package.

``cli`` has the commands, thin; ``settings`` and ``target`` say on what they work. ``*_status`` and ``*_views`` are what
they print, as plain values; ``demo``, ``demo_loop`` and ``loop_story`` the demo and its summary; ``bench`` what
``streamlens bench`` measures; ``pytest_plugin`` the fixtures (docs/testing.md).
"""
