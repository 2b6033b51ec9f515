"""Loihi's integers: quantise a Program, simulate it bit for bit as Lava does, write and read netx files."""
