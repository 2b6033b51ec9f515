"""The convolution of a network's input inside its block, computed from the input's events.

Contract: `convolution.enters` returns whether a layer can be part of a block; `convolution.entry_block` then computes
convolution, norm, LIF and pool in one pass, without ever writing the currents to memory. The kernels of a block
(`stl_deploy.nn.fused.kernels`) call `events` for it.
"""
