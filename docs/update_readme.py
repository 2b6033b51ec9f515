"""Run the demo and put what it prints, and a picture of its report, where the README shows them: ``make readme``."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- demo:begin -->", "<!-- demo:end -->"
CHROMIUM = (
    "--headless --no-sandbox --disable-gpu --hide-scrollbars --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --window-size=1100,900"
)


def demo(run_dir: Path) -> list[str]:
    """The verdict of ``stl-deploy run digits``: what it prints after the blank line."""
    command = [sys.executable, "-m", "stl_deploy", "run", "digits", "-o", str(run_dir), "--overwrite"]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=True)
    return done.stderr.rpartition("\n\n")[2].splitlines()


def gallery(run_dir: Path) -> None:
    """Write the graph's drawing and the report's raster as pictures of their own."""
    assets = ROOT / "docs" / "assets"
    show = [sys.executable, "-m", "stl_deploy", "show", str(run_dir), "-o", str(assets / "digits-graph.svg")]
    subprocess.run(show, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    drawings = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    raster = next(drawing for drawing in drawings if "Spikes of one sample" in drawing.partition(">")[0])
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    alone = raster.replace("<svg ", f"<svg {names} ", 1).replace("currentColor", "#777").replace("var(--s1)", "#1a6fb3")
    (assets / "digits-raster.svg").write_text(f"{alone}\n", encoding="utf-8")


def main() -> None:
    """Rewrite the README's block and, with a Chromium on the machine, docs/report.png."""
    run_dir = ROOT / "runs" / "digits"
    shown = "\n".join(demo(run_dir)).replace(f"{ROOT}/", "").replace(str(Path.home()), "~")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n```text\n{shown}\n```\n{END}{after}", encoding="utf-8")
    gallery(run_dir)
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        print("no chromium: docs/report.png is left as it is", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as profile:
        picture = f"--screenshot={ROOT / 'docs' / 'report.png'}"
        page = (run_dir / "report.html").as_uri()
        command = [browser, *CHROMIUM.split(), f"--user-data-dir={profile}", picture, page]
        subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
