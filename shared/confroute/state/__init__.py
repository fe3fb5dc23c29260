"""Stores for the state between calls: in memory, in SQLite, in Redis."""

from confroute.state.store import MemoryStore, RedisStore, SQLiteStore, Store, open_store

__all__ = ["MemoryStore", "RedisStore", "SQLiteStore", "Store", "open_store"]
