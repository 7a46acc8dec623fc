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
MOST_SIDE = 512
"""Of a picture in which ink is looked for."""
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
        if (_ground(picture) == "light") == (ground == "dark"):
            picture = ImageOps.invert(picture)
            done.append("inverted")
        if not fits:
            dark = picture if ground == "dark" else ImageOps.invert(picture)
            dark = _centred(_without_paper(dark, max(columns, rows)), columns, rows, fill or 5 / 7)
            picture = dark if ground == "dark" else ImageOps.invert(dark)
            done.append(f"its ink centred on {columns}x{rows}")
    elif not fits:
        picture = ImageOps.fit(picture, (columns, rows), Image.Resampling.BILINEAR)
        done.append(f"resized to {columns}x{rows}")
    return np.asarray(picture, np.uint8).reshape(tuple(shape)), ", ".join(done)


def _ground(picture: "Image.Image") -> str:
    """How a picture begins at its edges: nearer to its lightest place, or to its darkest. So dim paper is light."""
    pixels = np.asarray(picture)
    edge = float(np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])))
    low, high = float(pixels.min()), float(pixels.max())
    return "light" if edge > ((low + high) / 2 if high - low > FAINT else 127) else "dark"


def _without_paper(picture: "Image.Image", size: int) -> "Image.Image":
    """A picture, light on dark, with the ground at 0 and the ink up to 255, however the light fell on the paper.

    The ground is the quadratic surface through what is not ink. Ink is what is above the level that divides the rest
    best (Otsu's); a picture where that is no more than the paper's own grain has none.

    Args:
        size: of the longer side that is wanted in the end; the picture is made smaller as far as that allows.
    """
    from PIL import Image, ImageFilter

    picture = picture.copy()
    picture.thumbnail((max(MOST_SIDE, 4 * size),) * 2, Image.Resampling.BOX)
    grains = min(picture.size) > 100  # single pixels are none of the ink's
    found = np.asarray(picture.filter(ImageFilter.MedianFilter(3)) if grains else picture, float)
    y, x = (np.linspace(-1, 1, count) for count in found.shape)
    plane = np.stack(np.broadcast_arrays(1, x, y[:, None], x * y[:, None], x**2, (y**2)[:, None]), axis=-1)
    paper = np.full(found.shape, np.median(found))
    for _ in range(4):
        apart = found - paper
        spread = max(np.median(np.abs(apart)), 2.0)
        few = (np.abs(apart) < 4 * spread).nonzero()
        few = tuple(place[:: 1 + len(place) // 20_000] for place in few)
        paper = plane @ np.linalg.lstsq(plane[few], found[few], rcond=None)[0]
    apart = (found - paper).clip(0, 255)
    level = _otsu(apart)
    ink = apart > level
    if level < FAINT / 4 or not ink.any():
        return Image.new("L", picture.size)
    grain = float(np.median(apart[~ink]))
    if grains:
        near = np.asarray(Image.fromarray(ink.astype(np.uint8)).filter(ImageFilter.MaxFilter(5)), bool)
        apart = np.where(near, (np.asarray(picture, float) - paper).clip(0, 255), 0)
    high, low = np.percentile(apart[ink], 75), min(level / 2, 4 * max(grain, 1.0))
    return Image.fromarray(((apart - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8))


def _otsu(values: np.ndarray) -> float:
    """The level that divides values from 0 to 255 in two groups that differ most."""
    counts = np.bincount(values.astype(np.uint8).ravel(), minlength=256).astype(float)
    below = counts.cumsum()
    sums = (counts * np.arange(256)).cumsum()
    above = below[-1] - below
    with np.errstate(all="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    between = np.nan_to_num(between)
    return float(np.flatnonzero(between >= between.max() * (1 - 1e-9)).mean())  # of many as good, the middle one


def _centred(picture: "Image.Image", columns: int, rows: int, fill: float) -> "Image.Image":
    """The ink of a picture, light on dark, at the size and place that the training pictures' ink has."""
    from PIL import Image, ImageOps

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
