"""One client: its requests, and what each of them does."""
