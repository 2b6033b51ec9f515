"""Convert the graph of one step to a Program: cores become neurons, the operations between them layers.

`builder` walks from the output to the inputs; for each operation that it meets, `kinds` names the function that makes
the layer: `weights`, `norms`, `pools`, `shapes`, `elementwise` and `thresholds` hold them.
"""

from stl_deploy.errors import CaptureError
from stl_deploy.tracing.layers.builder import Builder, Layers
from stl_deploy.tracing.layers.kinds import KINDS
from stl_deploy.tracing.refractory import explained
from stl_deploy.tracing.steps import Steps


def to_layers(steps: Steps) -> Layers:
    """Return the LayerGraph of one step; raise CaptureError, with the line, for parts without a form in it."""
    try:
        return Builder(steps, KINDS).build()
    except CaptureError as error:
        raise explained(error, steps) from None


__all__ = ["Layers", "to_layers"]
