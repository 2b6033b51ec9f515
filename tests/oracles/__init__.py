"""Code that the product replaced, kept for one release to compare the new with the old."""
