"""Run one file in one runtime: python worker.py RUNTIME FOLDER

Runs in the runtime's own environment. FOLDER holds model.onnx or torch's model.pt2, spec.json (form, names of
inputs and outputs in the file's order, states as [input, output]) and input.npz (by name; of the step form x is
[T, B, ...]). Writes output.npz, every output over all steps, and prints the seconds of the fastest of several runs.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = list[Any]
Call = Callable[[Arrays], Arrays]
_ROUNDS = 20
_SECONDS = 0.5


def onnxruntime(folder: Path, spec: Any) -> Call:
    """Open it in ONNX Runtime, whose environment is our own: its telemetry is off there."""
    from stl_deploy.exporters.onnx.runtime import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return lambda arrays: session.run(spec["outputs"], dict(zip(spec["inputs"], arrays, strict=True)))


def openvino(folder: Path, spec: Any) -> Call:
    """Compile it in OpenVINO, in float32."""
    import openvino as ov

    core = ov.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    model = core.compile_model(core.read_model(folder / "model.onnx"), "CPU", settings)

    def call(arrays: Arrays) -> Arrays:
        outputs = model(dict(zip(spec["inputs"], arrays, strict=True)))
        return [np.array(outputs[name]) for name in spec["outputs"]]

    return call


def iree(folder: Path, spec: Any) -> Call:
    """Compile it with IREE for this processor."""
    import iree.compiler.tools
    import iree.runtime

    tools = Path(sys.executable).parent
    _run(tools / "iree-import-onnx", folder / "model.onnx", "-o", folder / "model.mlir")
    target = ["--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu"]
    host = "--iree-llvmcpu-target-cpu=host"
    _run(tools / "iree-compile", folder / "model.mlir", *target, host, "-o", folder / "model.vmfb")
    module = iree.runtime.load_vm_flatbuffer_file(str(folder / "model.vmfb"), driver="local-sync")
    function = module["stl-deploy"]

    def call(arrays: Arrays) -> Arrays:
        outputs = function(*arrays)
        return [value.to_host() for value in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return call


def tract(folder: Path, spec: Any) -> Call:
    """Load it in tract."""
    import tract as library

    model = library.onnx().load(str(folder / "model.onnx")).into_model().into_runnable()
    return lambda arrays: [value.to_numpy() for value in model.run(arrays)]


def emx(folder: Path, spec: Any) -> Call:
    """Translate it into C and compile that."""
    code = folder / "model.c"
    _run(Path(sys.executable).parent / "emx-onnx-cgen", "compile", folder / "model.onnx", code)
    _run("gcc", "-O2", "-march=native", "-ffp-contract=off", "-shared", "-fPIC", code, "-lm", "-o", folder / "model.so")
    function = ctypes.CDLL(str(folder / "model.so")).model

    def call(arrays: Arrays) -> Arrays:
        outputs = [np.zeros(shape, np.float32) for shape in spec["shapes"]]
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (*arrays, *outputs)]
        function(*pointers)
        return outputs

    return call


def litert(folder: Path, spec: Any) -> Call:
    """Convert what torch exported to LiteRT, and open that."""
    import litert_torch
    import torch
    from ai_edge_litert.interpreter import Interpreter

    x = torch.from_numpy(np.load(folder / "input.npz")["x"])
    litert_torch.convert(torch.export.load(folder / "model.pt2").module(), (x,)).export(str(folder / "model.tflite"))
    runner = Interpreter(str(folder / "model.tflite"), num_threads=1).get_signature_runner()
    (name,) = runner.get_input_details()
    return lambda arrays: list(runner(**{name: arrays[0]}).values())


def executorch(folder: Path, spec: Any) -> Call:
    """Lower what torch exported to ExecuTorch with XNNPACK, and load that."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    exported = torch.export.load(folder / "model.pt2")
    buffer = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch().buffer
    program = Runtime.get().load_program(buffer)
    method = program.load_method("forward")

    def call(arrays: Arrays, _kept: Any = (buffer, program)) -> Arrays:  # which the method reads, but does not own
        return [value.numpy() for value in method.execute([torch.from_numpy(array) for array in arrays])]

    return call


RUNTIMES = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "iree": iree,
    "tract": tract,
    "emx": emx,
    "litert": litert,
    "executorch": executorch,
}


def _run(*command: Any) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        raise RuntimeError((errors or lines[-1:] or ["failed"])[0])


def whole(call: Call, spec: Any, given: Any) -> Arrays:
    """Every output over all steps: one call, or one for each step with the states of the one before."""
    if spec["form"] != "step":
        return call([given[name] for name in spec["inputs"]])
    states = {name: given[name] for name, _ in spec["states"]}
    fed = [name for name in spec["inputs"] if name not in states]
    steps = []
    for t in range(len(given[fed[0]])):
        outputs = call([np.ascontiguousarray(states[n] if n in states else given[n][t]) for n in spec["inputs"]])
        by_name = dict(zip(spec["outputs"], outputs, strict=True))
        states = {name: by_name[after] for name, after in spec["states"]}
        steps.append(outputs)
    return [np.stack(values) for values in zip(*steps, strict=True)]


def main() -> None:
    """The command."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    spec = json.loads((folder / "spec.json").read_text())
    with np.load(folder / "input.npz") as stored:
        given = {key: np.ascontiguousarray(stored[key]) for key in stored}
    try:
        call = RUNTIMES[name](folder, spec)
        outputs = whole(call, spec, given)
    except Exception as error:  # whatever a runtime raises is its row
        print(json.dumps({"failed": f"{type(error).__name__}: {error}".strip()[:2000]}))
        return
    np.savez(folder / "output.npz", **{f"o{i}": np.asarray(array) for i, array in enumerate(outputs)})
    best, start = float("inf"), time.perf_counter()
    for _ in range(_ROUNDS):
        before = time.perf_counter()
        whole(call, spec, given)
        best = min(best, time.perf_counter() - before)
        if time.perf_counter() - start > _SECONDS:
            break
    print(json.dumps({"seconds": best}))


if __name__ == "__main__":
    main()
