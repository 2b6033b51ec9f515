"""The C target: integers of any Program as C99 without floating point or allocation, for microcontrollers."""
