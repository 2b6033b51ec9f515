"""Witnesses: simulators that are not ours, each in an environment of its own, as Runners."""

from __future__ import annotations

from stl_deploy.exporters.witnesses.brian2 import Brian2
from stl_deploy.exporters.witnesses.nengo_loihi import NengoLoihi
from stl_deploy.exporters.witnesses.sanafe import SanaFe
from stl_deploy.exporters.witnesses.xylosim import XyloSim

TARGETS = (Brian2, NengoLoihi, SanaFe, XyloSim)
