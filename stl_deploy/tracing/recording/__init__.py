"""Record a run of a model as values and the operations between them."""
