"""Tables and sentences of results, for terminals."""
