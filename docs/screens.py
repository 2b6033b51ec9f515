"""The four screens of site and report, in a headless Chromium: ``make screens``."""

from __future__ import annotations

import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests import chromium  # noqa: E402

SITE = ROOT / "build" / "site"
SCREENS = {
    "first": (SITE / "index.html", "screen", 1280, 900, "light"),
    "narrow": (SITE / "tutorials" / "own-model" / "index.html", "screen", 390, 844, "light"),
    "dark": (SITE / "tutorials" / "energy-report" / "index.html", "screen", 1280, 900, "dark"),
    "printed": (SITE / "limits" / "index.html", "print", 720, 900, "light"),
}
"""Of the site: page, medium, width, height, colours. The report's are the same windows on its one page."""
HEIGHT = 480


def pictures(report: Path | None) -> list[Image.Image]:
    """The four screens of the site, or of a report."""
    taken = []
    for page, medium, width, height, scheme in SCREENS.values():
        with tempfile.TemporaryDirectory() as profile, chromium.page(Path(profile)) as tab:
            tab.emulate(medium, width, height)
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            tab._call("Emulation.setEmulatedMedia", media=medium, features=features)
            tab.load((report or page).as_uri())
            tab._call(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
            )
            image = Image.open(BytesIO(tab.screenshot())).convert("RGB")
        taken.append(image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS))
    return taken


def beside(taken: list[Image.Image]) -> Image.Image:
    """Pictures in a row, parted by a grey line."""
    gap = 6
    sheet = Image.new("RGB", (sum(i.width + gap for i in taken) - gap, HEIGHT), "#888")
    left = 0
    for image in taken:
        sheet.paste(image, (left, 0))
        left += image.width + gap
    return sheet


def _fewer_colours(sheet: Image.Image) -> Image.Image:
    """256: the commonest as they are, and those nearest to the rest."""
    commonest = [colour for _, colour in sorted(sheet.getcolors(sheet.width * sheet.height), reverse=True)[:128]]
    others = sheet.quantize(128, method=Image.Quantize.MAXCOVERAGE).getpalette()[: 3 * 128]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in commonest for part in colour] + others)
    return sheet.quantize(palette=palette, dither=Image.Dither.NONE)


def main() -> None:
    """Write build/site-screens.png and build/report-screens.png."""
    for name, report in (("site", None), ("report", ROOT / "runs" / "digits" / "report.html")):
        sheet = _fewer_colours(beside(pictures(report)))
        sheet.save(ROOT / "build" / f"{name}-screens.png", optimize=True)


if __name__ == "__main__":
    main()
