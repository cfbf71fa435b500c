"""The one port: HTTP, TLS, the upgrade to a WebSocket, and the application behind it."""
