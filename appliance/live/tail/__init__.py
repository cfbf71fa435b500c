"""Following the outbox: every committed change read once, rights taken up before it is delivered."""
