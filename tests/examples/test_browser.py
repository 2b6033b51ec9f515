"""The page of examples/browser in headless Chromium: its spikes are the reference's."""

import functools
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from stl_deploy._util.files import read_input
from stl_deploy.graph.run import run
from stl_deploy.runs.source import TEST_INPUT, open_program, open_source
from tests import chromium

EXAMPLE = Path(__file__).parents[2] / "examples" / "browser"
IMAGES = 6

if chromium.PROGRAM is None:
    MISSING = "no Chromium on this machine (Debian: apt-get install chromium)"
elif not (EXAMPLE / "node_modules" / "onnxruntime-web").is_dir():
    MISSING = "no ONNX Runtime Web (npm ci --prefix examples/browser)"
else:
    MISSING = None
needs_browser = pytest.mark.skipif(MISSING is not None and not chromium.REQUIRED, reason=f"browser example: {MISSING}")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def _build(run_dir, site):
    command = [sys.executable, str(EXAMPLE / "build.py"), str(run_dir), "-o", str(site)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def page(digits_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    built = _build(digits_run, folder / "site")
    assert built.returncode == 0, built.stderr
    handler = functools.partial(_Quiet, directory=folder / "site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with chromium.page(folder / "profile") as opened:
            opened.open(f"http://127.0.0.1:{server.server_port}/")
            opened.wait_for("!!window.example")
            yield opened
        server.shutdown()


@pytest.mark.push(1)
@needs_browser
def test_every_spike_in_the_browser_is_the_references(page, digits_run):
    program = open_program(open_source(digits_run))
    x, _ = read_input(digits_run / TEST_INPUT)
    names = [node.name for node in program.spiking]
    expected = run(program, x[:, :IMAGES], record=names)
    for i in range(IMAGES):
        steps = page.evaluate(f"""(async () => {{
            const steps = await example.net.watch(Float32Array.from(example.net.facts.samples[{i}].pixels));
            const plain = ({{scores, spikes}}) => ({{
                scores: [...scores],
                spikes: Object.fromEntries(Object.entries(spikes).map(([name, values]) => [name, [...values]])),
            }});
            return steps.map(plain);
        }})()""")
        assert len(steps) == len(x)
        for t, step in enumerate(steps):
            np.testing.assert_array_equal(step["scores"], expected.y[t, i])
            assert list(step["spikes"]) == names
            for name in names:
                np.testing.assert_array_equal(step["spikes"][name], expected.recorded[name][t, i].ravel(), name)
    assert all(0 < expected.recorded[name].mean() < 1 for name in names)


@needs_browser
def test_a_test_image_shown_by_its_button_is_classified_as_by_the_reference(page, digits_run):
    program = open_program(open_source(digits_run))
    x, _ = read_input(digits_run / TEST_INPUT)
    votes = run(program, x[:, :1]).y.sum(axis=0)[0]
    page.evaluate("document.querySelector('#samples button').click()")
    _wait_until_played(page)
    assert int(page.evaluate("document.getElementById('answer').textContent")) == votes.argmax()
    shown = page.evaluate("[...document.querySelectorAll('.score span:last-child')].map((e) => e.textContent)")
    assert shown == [f"{vote:.1f}" for vote in votes]


@needs_browser
def test_drawing_reaches_the_network_as_an_8x8_image_on_its_grid(page):
    page.evaluate("""(() => {
        const watch = example.net.watch.bind(example.net);
        example.net.watch = (pixels) => { example.last = [...pixels]; return watch(pixels); };
        document.getElementById('clear').click();
    })()""")
    assert page.evaluate("document.getElementById('answer').textContent") == "–"
    left, top = page.evaluate("(({x, y}) => [x, y])(document.getElementById('pad').getBoundingClientRect())")
    page.drag([(left + 128, top + y) for y in range(40, 220, 20)])
    _wait_until_played(page)
    image = np.reshape(page.evaluate("example.last"), (8, 8))
    assert ((image * 16) % 1 == 0).all()
    # an upright stroke as high as the image, in the middle
    assert (image[1:7, 3:5] > 0).all()
    assert not image[:, [0, 1, 6, 7]].any()
    assert page.complaints == []


@needs_browser
def test_build_says_what_it_needs(tmp_path):
    refused = _build(tmp_path, tmp_path / "site")
    assert refused.returncode == 1
    assert "a folder without net.nir" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def _wait_until_played(page):
    page.wait_for(
        "document.querySelector('#steps button:last-child').getAttribute('aria-pressed') === 'true'"
        " && document.getElementById('answer').textContent !== '–'"
    )
