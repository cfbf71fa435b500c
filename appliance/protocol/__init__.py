"""Text to requests, replies and events to text: no await, no clock, no I/O."""
