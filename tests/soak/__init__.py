"""A soak: writers, clients that come and go, kills and restarts, for as long as one likes, and an oracle."""
