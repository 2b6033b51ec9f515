"""Set up Lava's side environment for the tests, or say in one line why not."""

from __future__ import annotations

import os
import sys

from stl_deploy.errors import StlDeployError
from stl_deploy.exporters.lava import environment


def main() -> int:
    if environment.status().ready:
        return 0
    try:
        environment.install(progress=lambda line: print(line, file=sys.stderr))
    except StlDeployError as error:
        print(f"no Lava for the tests: {error}; recorded golden vectors stand in", file=sys.stderr)
        return int(os.environ.get("STL_DEPLOY_REQUIRE_LAVA") == "1")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
