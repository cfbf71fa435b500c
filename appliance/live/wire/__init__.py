"""What is sent to one client: frames, in order, bounded, between trio-websocket and the socket."""
