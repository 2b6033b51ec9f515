"""Program to integers, and how integers are run: sums, one neuron step, ranges. netx and C both read it."""
