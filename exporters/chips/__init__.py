"""Check chips and tools without an exporter: their obstacles, and alternatives for training."""
