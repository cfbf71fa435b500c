"""A table's shape to trigger SQL, an outbox row to a change: no await, no clock, no I/O."""
