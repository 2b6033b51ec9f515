"""C target: any Program in integers as C99 without floating point or allocation, for microcontrollers."""
