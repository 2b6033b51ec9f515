"""netx files: Loihi's integers as lava-dl's netx loads them, a chain view of `stl_deploy.integers`."""
