"""The NIR graph itself as a target, and the reference run."""
