"""What was replaced, kept for one release as it was, for property tests of the new against the old."""
