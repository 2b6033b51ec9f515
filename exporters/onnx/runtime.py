"""Import ONNX Runtime, in this one place, with its telemetry off.

The official Linux builds from 1.29 on report models and machine to their maker unless ``ORT_DISABLE_TELEMETRY`` stands
in the environment when the library is loaded: a device id and a database go into the user's cache, and ``.ses`` into
the folder for temporary files, through whatever link lies there. ``disable_telemetry_events()`` comes too late for the
files, but is all that helps where somebody else has imported the library before us.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

onnxruntime.disable_telemetry_events()

__all__ = ["onnxruntime"]
