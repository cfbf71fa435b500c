"""The SQLite file: the only package that knows aiosqlite and trio-asyncio."""
