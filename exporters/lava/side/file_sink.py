"""A Lava process that appends its input to a file (reading a Lava variable back goes value by value)."""

import os
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class FileSink(AbstractProcess):
    """Receive spikes of ``shape`` and append them to the file ``path``, one byte per neuron and step."""

    def __init__(self, *, shape: Any, path: str) -> None:
        super().__init__(shape=shape, path=path)
        self.path = path
        self.shape = shape
        self.a_in = InPort(shape=shape)


class PyFileSink(PyLoihiProcessModel):
    """Unbuffered, so that everything is in the file when the process is stopped."""

    a_in: PyInPort

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.file = os.open(proc_params["path"], os.O_WRONLY | os.O_APPEND)

    def run_spk(self) -> None:
        """Lava's step."""
        os.write(self.file, self.a_in.recv().astype(np.uint8).tobytes())


@implements(proc=FileSink, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyFileSinkFixed(PyFileSink):
    """Behind neurons in integers."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
