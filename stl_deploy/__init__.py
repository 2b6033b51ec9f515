"""stl-deploy: from a spiking network with learned thresholds to neuromorphic hardware.

Train (`stl_deploy.training.loop`), fold into a NIR graph (`stl_deploy.fold`), export and verify
(`stl_deploy.exporters`), count and cost (`stl_deploy.energy`). The command line
``stl-deploy`` is a thin layer over these.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("stl-deploy")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
