"""The NIR graph, its dialects, and the Program it is lowered to; needs no torch."""
