"""Rockpool 3.1: its torch modules and networks, over ``[B, T, features]``; forward also returns states and records."""

import torch
from rockpool.nn.combinators import Residual, Sequential
from rockpool.nn.modules import ExpSynTorch, LIFBitshiftTorch, LIFTorch, LinearTorch, aLIFTorch
from rockpool.nn.networks import SynNet, WaveSenseNet
from rockpool.parameters import Constant


def net(make):
    return lambda: (make(), (torch.rand(3, 20, 16) < 0.4).float() * 12, {"time": "second"})


def chain(*layers):
    return Sequential(LinearTorch((16, 12)), *layers, LinearTorch((12, 4)), LIFTorch((4,)))


def wave_sense():
    return WaveSenseNet(
        dilations=[2, 4],
        n_classes=4,
        n_channels_in=16,
        n_channels_res=8,
        n_channels_skip=8,
        n_hidden=8,
        kernel_size=2,
        bias=Constant(0.0),
        smooth_output=True,
        tau_mem=Constant(0.02),
        base_tau_syn=0.02,
        tau_lp=0.02,
        threshold=0.2,
        neuron_model=LIFTorch,
        dt=0.001,
    )


CASES = {
    "lif": net(lambda: chain(LIFTorch((12,)))),
    "lif-bitshift": net(lambda: chain(LIFBitshiftTorch((12,), max_spikes_per_dt=1))),
    "alif": net(lambda: chain(aLIFTorch((12,)))),
    "residual": net(lambda: chain(Residual(LinearTorch((12, 12)), LIFTorch((12,))))),
    "readout": net(lambda: Sequential(LinearTorch((16, 12)), LIFTorch((12,)), LinearTorch((12, 4)), ExpSynTorch((4,)))),
    "synnet": net(lambda: SynNet(4, 16, size_hidden_layers=[12, 12], time_constants_per_layer=[3, 3])),
    "wavesense": net(wave_sense),
}
GOLDEN = ()
