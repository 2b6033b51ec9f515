"""Run folders, network sources, and manifests."""
