"""NIR as a Format: files, dialects, lowering, other frameworks' readers, writing back, and the reference run."""
