"""Convolve with fewer multiplications, between blocks and while weights are learned.

Contract: `convolution.suits` returns whether a layer and its input can and should take them (3x3 or 5x5, stride 1, many
channels, AVX2); `convolution.convolve` then computes the layer and its gradients, with rounding of up to ten times that
of plain float32 sums. Only `plan` depends on this folder.
"""
