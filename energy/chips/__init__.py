"""Whole chips: floor power x time, stepping and events; predicted time; measured ANN baselines."""
