"""The integer model of netx chains that `stl_deploy.integers` replaced: quantise, simulate, ranges."""
