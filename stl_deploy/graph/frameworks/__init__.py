"""How other frameworks read a NIR file, and a network restated for one of them."""
