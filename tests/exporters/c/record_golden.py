"""Write the recorded C text anew: python -m tests.exporters.c.record_golden"""

from stl_deploy.exporters.c.layout import make_plan
from stl_deploy.exporters.c.render import render_plan
from tests.exporters.c.test_by_hand import ABOUT, GOLDEN, digits_like

if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, text in render_plan(make_plan(digits_like()), ABOUT).items():
        (GOLDEN / name).write_text(text, encoding="ascii")
