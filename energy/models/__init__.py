"""Energy models of the literature that include memory, and the conventions of published ratios."""
