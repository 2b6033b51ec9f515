"""Own data: a folder of images, an npz file, a Python file, or arrays and torch Datasets from Python."""
