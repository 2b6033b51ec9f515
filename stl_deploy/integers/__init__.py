"""The one integer model: a Program becomes an `IntegerGraph`; quantise, simulate, ranges, storage, training (qat)."""
