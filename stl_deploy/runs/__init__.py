"""Run folders, sources of a network, manifests: what verbs read and keep on disk."""
