"""Build the page for a trained digits network: python examples/browser/build.py runs/digits

Needs the run folder (stl-deploy run digits -o runs/digits) and ONNX Runtime Web (npm ci, in this folder). Writes a
folder of plain files, examples/browser/site by default, that any web server can serve:
python -m http.server --bind 127.0.0.1 -d examples/browser/site
"""

import argparse
import shutil
from pathlib import Path

import numpy as np

from stl_deploy._util.files import read_input, sha256, write_json
from stl_deploy.errors import InputError, StlDeployError
from stl_deploy.exporters.onnx import OnnxModel, export_onnx
from stl_deploy.runs.source import TEST_INPUT, open_program, open_source

HERE = Path(__file__).parent
PAGE = ("index.html", "style.css", "app.js", "net.js", "pad.js", "pictures.js")
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
IMAGE = (1, 8, 8)
SAMPLES = 20


def build(run_dir: Path, site: Path) -> None:
    """Write the page, the network in the step form, what the page must know about it, and ONNX Runtime Web."""
    runtime = HERE / "node_modules" / "onnxruntime-web" / "dist"
    if not runtime.is_dir():
        raise InputError(f"ONNX Runtime Web is not there; run: npm ci --prefix {HERE}")
    source = open_source(run_dir)
    program = open_program(source)
    x, labels = read_input(run_dir / TEST_INPUT)
    if labels is None or x.shape[2:] != IMAGE or (x != x[0]).any():
        raise InputError(f"{run_dir}: the page shows 8x8 images, the same at every step; run the digits network")
    (site / "ort").mkdir(parents=True, exist_ok=True)
    export_onnx(program, site / "net.onnx", form="step", provenance={"sha256": sha256(source.file)})
    samples = [
        {"label": int(label), "pixels": image.ravel().tolist()}
        for label, image in zip(labels[:SAMPLES], x[0], strict=False)
    ]
    write_json(site / "net.json", facts(OnnxModel.load(site / "net.onnx"), run_dir.name, len(x)) | {"samples": samples})
    for name in PAGE:
        shutil.copyfile(HERE / name, site / name)
    for name in RUNTIME:
        shutil.copyfile(runtime / name, site / "ort" / name)


def facts(model: OnnxModel, name: str, steps: int) -> dict[str, object]:
    """Tensors and shapes, for a program that cannot read the model's metadata."""
    ((_, entry),) = model.interface.inputs.items()
    ((output, scores),) = model.interface.outputs.items()
    shapes = {value.name: value.shape[1:] for value in model.session.get_outputs()}
    return {
        "name": name,
        "steps": steps,
        "input": {"tensor": entry, "shape": model.shapes[entry]},
        "output": {"node": output, "tensor": scores, "shape": shapes[scores]},
        "layers": [{"name": n, "tensor": t, "shape": shapes[t]} for n, t in model.interface.spikes.items()],
        "states": [
            {
                "tensor": state.tensor,
                "next": state.next_tensor,
                "shape": model.shapes[state.tensor],
                "rest": np.broadcast_to(state.rest, model.shapes[state.tensor]).ravel().tolist(),
            }
            for state in model.interface.states
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder of the digits network")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "site", help="where the page goes")
    arguments = parser.parse_args()
    try:
        build(arguments.run, arguments.output)
    except StlDeployError as error:
        raise SystemExit(str(error)) from None
    print(f"written: {arguments.output}; serve it: python -m http.server --bind 127.0.0.1 -d {arguments.output}")


if __name__ == "__main__":
    main()
