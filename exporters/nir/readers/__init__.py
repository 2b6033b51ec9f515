"""How other frameworks read a NIR file, and Programs exported for one of them."""
