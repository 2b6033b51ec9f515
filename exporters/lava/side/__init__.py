"""What the side environment's Python 3.10 executes; never imported by stl-deploy itself."""
