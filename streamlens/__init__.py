"""The front door: command line, settings and wiring. May import every other package."""
