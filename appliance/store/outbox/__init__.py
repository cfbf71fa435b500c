"""The outbox: read on, read again, kept within bounds; the messages in it."""
