"""Interpret the shapes of files whose writer did not follow NIR to the letter.

NIR's shapes have no batch axis. Real files have: a batch size written into Input's shape (from traced sample data),
and Flatten axes counted as in torch, with the batch first. A graph is lowered under the readings in turn until one
fits every node, so a file that follows NIR is always read as NIR says.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShapeConvention:
    """One interpretation of a file's shapes.

    strict: neuron parameters have the shape of what arrives (or hold one value), and Affine takes one axis; else
        any arrangement of the same number of values will do, and ``[C]`` stands for channels.
    leading: so many of the first axes of Input's shape are a batch size (and a number of steps).
    flatten_batch: Flatten's axes are counted with a batch axis in front.
    """

    strict: bool = True
    leading: int = 0
    flatten_batch: bool = False

    def assumptions(self) -> tuple[str, ...]:
        """Return assumptions beyond NIR's definition, one sentence each."""
        said = (
            (self.leading == 1, "the first axis of the Input shape is taken for a batch size"),
            (self.leading == 2, "the first two axes of the Input shape are taken for batch and steps"),
            (self.flatten_batch, "Flatten's axes are taken to be counted with a batch axis in front"),
            (not self.strict, "parameters are fitted to shapes that differ from theirs"),
        )
        return tuple(sentence for holds, sentence in said if holds)


SHAPE_CONVENTIONS = tuple(
    ShapeConvention(strict, leading, flatten_batch)
    for strict in (True, False)
    for leading in (0, 1, 2)
    for flatten_batch in (False, True)
)
"""In the order they are tried."""
