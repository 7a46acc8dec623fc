"""From a picture as a person has it to an array as the model was trained on."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

FAINT = 50
"""Up to here the paper, from 0 to 255."""
MOST_PIXELS = 16_000_000
FORMATS = ("PNG", "JPEG")


class PictureError(ValueError):
    """A file that is no picture, or too large a one; reads as the end of a sentence."""


def as_trained(content: bytes, shape: Sequence[int], ground: str, fill: float = 0.0) -> tuple[np.ndarray, str]:
    """A picture's pixels, uint8, of the shape, and what was done to it, in words.

    Where the training pictures are light on dark, or dark on light, one that is the other way round is inverted; its
    ink is cut out, shrunk to the share `fill` of the picture that theirs takes, and centred by its mass. One that has
    the shape already is only inverted. Other pictures are resized, cut to the shape's proportions.

    Raises:
        PictureError: it is no PNG or JPEG, or it has too many pixels.
    """
    from PIL import Image, ImageOps

    rows, columns, *channels = shape
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels[0] if channels else 1]
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise PictureError(f"has {opened.width}x{opened.height} pixels; legal: up to {MOST_PIXELS}")
            picture = ImageOps.exif_transpose(opened)
            if mode != "RGBA" and ("A" in picture.getbands() or "transparency" in picture.info):
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            if picture.mode in ("I", "F") or picture.mode.startswith("I;"):  # 16 bits
                picture = Image.fromarray((np.asarray(picture, float) / 257).clip(0, 255).astype(np.uint8))
            picture = picture.convert(mode)
    except PictureError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise PictureError("is no PNG or JPEG that can be read") from error
    done = [f"from {picture.width}x{picture.height}"]
    fits = picture.size == (columns, rows)
    if ground and mode == "L":
        edges = np.asarray(picture)
        edge = float(np.median(np.concatenate([edges[0], edges[-1], edges[:, 0], edges[:, -1]])))
        if (edge > 127) == (ground == "dark"):
            picture = ImageOps.invert(picture)
            done.append("inverted")
        if not fits:
            dark = picture if ground == "dark" else ImageOps.invert(picture)
            dark = _centred(dark, columns, rows, fill or 5 / 7)
            picture = dark if ground == "dark" else ImageOps.invert(dark)
            done.append(f"its ink centred on {columns}x{rows}")
    elif not fits:
        picture = ImageOps.fit(picture, (columns, rows), Image.Resampling.BILINEAR)
        done.append(f"resized to {columns}x{rows}")
    return np.asarray(picture, np.uint8).reshape(tuple(shape)), ", ".join(done)


def _centred(picture: "Image.Image", columns: int, rows: int, fill: float) -> "Image.Image":
    """The ink of a picture, light on dark, at the size and place that the training pictures' ink has."""
    from PIL import Image, ImageOps

    picture = ImageOps.autocontrast(picture)
    box = picture.point([255 if value > FAINT else 0 for value in range(256)]).getbbox()
    result = Image.new("L", (columns, rows))
    if box is None:
        return result
    inside = (max(1, round(columns * fill)), max(1, round(rows * fill)))
    ink = ImageOps.contain(picture.crop(box), inside, Image.Resampling.LANCZOS)
    weights = np.asarray(ink, float)
    total = max(weights.sum(), 1)
    place = []
    for axis, size, whole in ((0, ink.width, columns), (1, ink.height, rows)):
        mean = (weights.sum(axis=axis) * (np.arange(size) + 0.5)).sum() / total
        place.append(min(max(round(whole / 2 - mean), 0), whole - size))
    result.paste(ink, (place[0], place[1]))
    return result
