"""SpikingJelly 2.0: single- and multi-step nets, and the deep ones of its model zoo on small images."""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import parametric_lif_net, sew_resnet, spiking_resnet, spiking_vgg

try:  # those of 2.0
    from spikingjelly.activation_based.model import qkformer, spike_driven_transformer, spikformer
except ImportError:
    TRANSFORMERS = False
else:
    TRANSFORMERS = True
from torch import nn


def stack(kind, mode, **options):
    def neurons():
        return kind(surrogate_function=surrogate.ATan(), v_threshold=0.5, **options)

    net = nn.Sequential(
        layer.Conv2d(1, 4, 3, padding=1, bias=False),
        layer.BatchNorm2d(4),
        neurons(),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(4 * 16, 10),
        neurons(),
    )
    functional.set_step_mode(net, mode)
    return lively(net)


def pooled(kind, **options):
    """The pool between weights and neurons, a norm behind it."""
    net = nn.Sequential(
        layer.Conv2d(1, 4, 3, padding=1, bias=False),
        layer.MaxPool2d(2),
        layer.BatchNorm2d(4),
        kind(v_threshold=0.5, **options),
        layer.Flatten(),
        layer.Linear(4 * 16, 10),
        kind(v_threshold=0.5, **options),
    )
    functional.set_step_mode(net, "m")
    return lively(net)


class Static(nn.Module):
    """A static image, shown six times; the mean of the spikes is put out."""

    def __init__(self):
        super().__init__()
        self.net = stack(neuron.IFNode, "s")

    def forward(self, x):
        total = 0
        for _ in range(6):
            total = total + self.net(x)
        return total / 6


def lively(net):
    """Random statistics and gains for the norms, so that deep layers spike."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.mul_(2)
                module.bias.normal_(0.2, 0.2)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return net


def deep(make, kind=neuron.IFNode, **options):
    net = make(spiking_neuron=kind, surrogate_function=surrogate.ATan(), detach_reset=True, **options)
    functional.set_step_mode(net, "m")
    return lively(net)


def sequence():
    return torch.rand(6, 3, 1, 8, 8) * 3


def images(side=32, channels=3):
    return torch.rand(4, 2, channels, side, side) * 2


def _multi(kind, **options):
    return lambda: (stack(kind, "m", **options), sequence(), {})


CASES = {
    "if-multi": _multi(neuron.IFNode),
    "if-soft": _multi(neuron.IFNode, v_reset=None),
    "lif-multi": _multi(neuron.LIFNode),
    "lif-single": lambda: (stack(neuron.LIFNode, "s"), sequence(), {"time": "step"}),
    "lif-soft": _multi(neuron.LIFNode, v_reset=None),
    "lif-no-decay-input": _multi(neuron.LIFNode, decay_input=False, tau=4.0),
    "lif-v-reset": _multi(neuron.LIFNode, v_reset=-0.25),
    "plif-multi": _multi(neuron.ParametricLIFNode),
    "max-pool-of-currents": lambda: (pooled(neuron.IFNode), sequence(), {}),
    "if-static": lambda: (Static(), sequence()[0], {"time": "inside"}),
    "plif-mnist-net": lambda: (
        deep(parametric_lif_net.MNISTNet, neuron.ParametricLIFNode, channels=16),
        images(28, 1),
        {},
    ),
    "sew-resnet18-add": lambda: (deep(sew_resnet.sew_resnet18, cnf="ADD"), images(), {}),
    "sew-resnet18-and": lambda: (deep(sew_resnet.sew_resnet18, cnf="AND"), images(), {}),
    "sew-resnet18-iand": lambda: (deep(sew_resnet.sew_resnet18, cnf="IAND"), images(), {}),
    "spiking-resnet18": lambda: (deep(spiking_resnet.spiking_resnet18, neuron.LIFNode), images(), {}),
    "spiking-vgg11-bn": lambda: (deep(spiking_vgg.spiking_vgg11_bn, num_classes=10), images(), {}),
}


def driven(net, side=32):
    """Norms that have seen images and drive their neurons; the images, once for all steps."""
    x = torch.rand(4, 3, side, side)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.constant_(module.weight, 3.0)
            nn.init.constant_(module.bias, 1.0)
    net.train()
    with torch.no_grad():
        for _ in range(20):
            net(x)
            functional.reset_net(net)
    return net.eval(), x[:2], {"time": "inside"}


def late(mode):
    net = nn.Sequential(layer.Linear(6, 8), layer.Delay(2), neuron.LIFNode(v_threshold=0.3), layer.Linear(8, 3))
    functional.set_step_mode(net, mode)
    return net, (torch.rand(10, 4, 6) > 0.5).float(), {"time": "step"} if mode == "s" else {}


small = {"T": 4, "num_classes": 10, "embed_dims": 32}
CASES |= {"delay-multi": lambda: late("m"), "delay-single": lambda: late("s")}
if TRANSFORMERS:
    CASES["ilif"] = lambda: (pooled(neuron.ILIFNode), sequence(), {})
    size = {"img_size_h": 32, "img_size_w": 32, "patch_size": 4}
    CASES |= {
        "spikformer": lambda: driven(spikformer.Spikformer(**size, **small, num_heads=4, depths=2)),
        "spikformer-tiny": lambda: driven(
            spikformer.Spikformer(
                img_size_h=16,
                img_size_w=16,
                patch_size=4,
                num_heads=2,
                depths=1,
                T=4,
                num_classes=4,
                embed_dims=16,
            ),
            side=16,
        ),
        "qkformer": lambda: driven(qkformer.QKFormer(**small, num_heads=(1, 2, 2), depths=(1, 1, 1))),
        "spike-driven-transformer": lambda: driven(
            spike_driven_transformer.SpikeDrivenTransformer(**small, num_heads=4, depths=1)
        ),
    }
GOLDEN = ("if-soft", "lif-single", "lif-v-reset", "max-pool-of-currents", "ilif", "spikformer-tiny")
