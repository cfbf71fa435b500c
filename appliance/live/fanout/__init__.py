"""From events to the open sessions: who is subscribed, who is fed, what is remembered."""
