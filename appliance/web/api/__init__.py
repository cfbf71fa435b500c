"""The HTTP API: rows as JSON:API resources, messages of user topics, accounts, and its own description."""
