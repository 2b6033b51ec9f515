"""Readers for `isolated`: files that foreign parsers in C decode, as plain arrays.

Only numpy is imported at once.
"""

from __future__ import annotations

import warnings
from math import prod
from pathlib import Path

import numpy as np

from stl_deploy._util.install import missing
from stl_deploy._util.isolated import Answer
from stl_deploy._util.untrusted import one_line
from stl_deploy.errors import InputError

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
"""Without this list Pillow goes by content, and starts Ghostscript on PostScript that is named x.png."""
_GREY, _COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")


def read_image(path: Path, colour: str | None) -> Answer:
    """Read an image as uint8 ``[channels, height, width]``; colour: "grey", "rgb", or None for the image's own.

    Raises InputError for damage, decompression bombs, and images of more than 8 bits a channel.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            image = Image.open(path, formats=IMAGE_FORMATS)
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


_MOST_MAT_VALUES = 2**25
"""Of an array; the largest of the QT database has 4.8 million. Files are compressed, so their size bounds little."""


def read_mat(path: Path) -> Answer:
    """Read the arrays x and y of a MATLAB file for `isolated`: scipy's reader can crash on nested cells."""
    from scipy.io import loadmat, whosmat

    try:
        if any(prod(shape) > _MOST_MAT_VALUES for _, shape, _ in whosmat(path)):
            raise ValueError(f"it declares an array of more than {_MOST_MAT_VALUES:,} values")
        parts = loadmat(path, variable_names=("x", "y"))
        x, y = np.asarray(parts["x"]), np.asarray(parts["y"])
        if x.dtype.hasobject or y.dtype.hasobject:
            raise ValueError("x or y is a cell or a structure")
    except MemoryError:
        raise
    except Exception as error:  # scipy's reader raises anything on damaged files
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error}); get it again") from None
    return None, [x, y]


def read_aedat4(path: Path) -> Answer:
    """Read events of a file's first stream, int64 ``[4, n]`` of polarity, y, x, time in µs, for `isolated`."""
    try:
        import aedat
    except ImportError:
        raise missing("aedat") from None
    try:
        decoder = aedat.Decoder(str(path))
        streams = [key for key, stream in decoder.id_to_stream().items() if stream["type"] == "events"]
        parts = [packet["events"] for packet in decoder if packet["stream_id"] in streams[:1]]
        if not parts:
            raise ValueError("no events")
        names = ("on", "y", "x", "t")
        return None, [np.stack([np.concatenate([part[name] for part in parts]).astype(np.int64) for name in names])]
    except MemoryError:
        raise
    except BaseException as error:  # a panic of the decoder is no Exception
        raise InputError(f"{path}: damaged, truncated or not an AEDAT 4 file ({one_line(error, 160)})") from None
