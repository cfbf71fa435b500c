"""Reading for who is not fed: replay, snapshots, catch-up, and what else happened in a transaction."""
