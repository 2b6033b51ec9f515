"""One HTML page and its JSON twin: what was trained, whether it survived export, and what it costs."""
