"""Who is told of an event, and in which form: rights, filters, and what a transaction did to a row."""
