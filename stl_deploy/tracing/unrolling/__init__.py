"""Unroll a recorded run into single time steps, and extract the step that repeats."""
