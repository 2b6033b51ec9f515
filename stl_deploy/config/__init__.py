"""The configuration of a run: its schema, YAML files, presets, and error messages."""
