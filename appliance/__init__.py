"""live-appliance: one executable that turns a SQLite file into a realtime backend."""

__version__ = "0.1.0"
