"""What runs: the tail, the hub, the sessions and their way to the socket."""
