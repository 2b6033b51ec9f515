"""C with float32: any Program, Cells included, for processors with a float unit."""
