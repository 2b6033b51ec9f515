"""Own data: a folder of images, an npz file, a Python file, or arrays and torch Datasets handed over in Python."""
