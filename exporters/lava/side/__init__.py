"""Scripts for the side environment's Python 3.10; never imported by stl-deploy itself."""
