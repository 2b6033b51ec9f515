"""``python -m stl_deploy`` is ``stl-deploy``."""

from stl_deploy.cli import main

main()
