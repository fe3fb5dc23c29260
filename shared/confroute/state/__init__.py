"""Stores for the state between calls: in memory, in SQLite, in Redis."""

from confroute.state.redis import RedisStore
from confroute.state.sqlite import SQLiteStore
from confroute.state.store import MemoryStore, Store, open_store

__all__ = ["MemoryStore", "RedisStore", "SQLiteStore", "Store", "open_store"]
