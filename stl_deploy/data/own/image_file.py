"""Decode untrusted image files with Pillow: a reader for `isolated`."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from stl_deploy._util.isolated import Answer
from stl_deploy.errors import InputError

FORMATS = ("PNG", "JPEG", "MPO", "BMP", "WEBP", "TIFF", "PPM", "GIF")
"""Without this list Pillow goes by content, and starts Ghostscript on PostScript that is named x.png."""
_GREY, _COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")


def read_image(path: Path, colour: str | None) -> Answer:
    """An image as uint8 ``[channels, height, width]``; colour: "grey", "rgb", or None for the image's own.

    Raises InputError for damage, decompression bombs, and images of more than 8 bits a channel.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            image = Image.open(path, formats=FORMATS)
            image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{path}: more pixels than are safe to decode; make it smaller") from None
    except MemoryError:
        raise
    except Exception as error:  # PIL's readers raise whatever damage leads them to
        raise InputError(f"{path}: cannot be read as an image ({error}); replace or remove it") from None
    with image:
        if image.mode not in (*_GREY, *_COLOUR):
            raise InputError(
                f"{path}: expected an image of 8 bits a channel; found mode {image.mode}; convert it, or use npz"
            )
        grey = image.mode in _GREY if colour is None else colour == "grey"
        array = np.asarray(image.convert("L" if grey else "RGB"), np.uint8)
    return None, [array[None] if grey else array.transpose(2, 0, 1)]
