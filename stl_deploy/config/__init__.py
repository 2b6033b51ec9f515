"""The configuration of a run: its schema, YAML files and presets, and sentences for what is wrong in them."""
