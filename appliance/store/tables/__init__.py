"""The tables of the file: what there is, the triggers on it, and its rows."""
