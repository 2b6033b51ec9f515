"""Convolutions with fewer multiplications, between blocks and while weights are learned.

Contract: `convolution.suits` says whether a layer and its input can and should take them (3x3 or 5x5, stride 1, many
channels, AVX2); `convolution.convolve` then computes what the layer does, and its gradients, to rounding of up to ten
times that of plain float32 sums. Nothing else of the fast path depends on this folder but `plan`, which asks.
"""
