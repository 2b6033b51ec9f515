"""What the torch frameworks share: plain layers, stepping a list of modules, recording what neurons put out."""

import numpy as np
import torch


def tensor(array):
    return torch.from_numpy(array.copy())


def full(layer, value):
    """A float32 tensor of a layer's shape; ``value`` is a number or an array of that shape."""
    return tensor(np.broadcast_to(np.float32(value), tuple(layer["shape"])))


def synapse(layer):
    """Linear or Conv2d of torch, or None for another layer."""
    if layer["op"] == "linear":
        module = torch.nn.Linear(*layer["weight"].shape[::-1])
    elif layer["op"] == "conv":
        outputs, inputs, *kernel = layer["weight"].shape
        module = torch.nn.Conv2d(inputs, outputs, kernel, stride=layer["stride"], padding=layer["padding"])
    elif layer["op"] == "flatten":
        return torch.nn.Flatten()
    elif layer["op"] == "avgpool":
        return torch.nn.AvgPool2d(layer["kernel"])
    else:
        return None
    module.weight.data, module.bias.data = tensor(layer["weight"]), tensor(layer["bias"])
    return module


def watch(modules):
    """Collects what each of the modules puts out, call by call."""
    outputs = [[] for _ in modules]
    for found, module in zip(outputs, modules, strict=True):
        module.register_forward_hook(
            lambda _module, _inputs, out, found=found: found.append(
                (out[0] if isinstance(out, tuple) else out).detach()
            )
        )
    return outputs


def _spikes(out):
    return (out[0] if isinstance(out, tuple) else out).detach()


def stacked(outputs):
    return [torch.stack(steps).numpy() for steps in outputs]


def ordered(modules, call):
    """The modules in the order in which ``call`` reaches them."""
    found = []
    hooks = [m.register_forward_hook(lambda module, *_: found.append(module)) for m in modules]
    call()
    for hook in hooks:
        hook.remove()
    return list(dict.fromkeys(found))
