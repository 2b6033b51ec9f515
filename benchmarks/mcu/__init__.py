"""A C folder on an emulated microcontroller: spikes, instructions, flash and RAM."""
