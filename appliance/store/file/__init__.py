"""The database file: connections, locks, its place, what is ours in it, and the one writer."""
