"""The pages' templates: everything in one file, every name escaped, a missing value an error."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from stl_deploy._util.units import plain
from stl_deploy.report.page.format import count, counts, ends, joules, percent, percents, ratio, ratios, span


@cache
def template(name: str) -> Template:
    """A page by the name of its file, with the style and the one script in it."""
    folder = files(__package__)

    def load(file: str) -> str:
        return (folder / file).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(load), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        joules=joules, count=count, percent=percent, percents=percents, ratio=ratio, span=span, plain=plain
    )
    environment.filters.update(
        ratios=ratios,
        counts=counts,
        span_w=lambda value: ends(value, "W"),
        span_s=lambda value: ends(value, "s"),
        span_js=lambda value: ends(value, "J·s"),
    )
    script = load("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(css=Markup(load("style.css")), script=Markup(script), script_hash=f"sha256-{digest}")
    return environment.get_template(name)
