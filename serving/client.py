"""`python -m serving.client image.png …`: asks the model server what digit a picture shows."""

import argparse
import io
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SIDE, DIGIT_SIDE = 28, 20
FAINT = 50
"""Up to here the paper, from 0 to 255."""
MOST_PIXELS = 50_000_000
PER_REQUEST = 256


class ClientError(Exception):
    """What went wrong, with the remedy."""


def whole(low: int, high: int) -> Callable[[str], int]:
    """What argparse calls to read a whole number from `low` to `high`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"it is {text!r}; legal: a whole number from {low} to {high}")
        return number

    return read


def read_image(path: Path, invert: bool | None = None) -> np.ndarray:
    """A picture as the model takes it: uint8, shape (784,), light on dark.

    Args:
        path: a PNG, JPEG or whatever else Pillow reads.
        invert: whether light and dark are exchanged; None: if the picture's border is light.

    Raises:
        ClientError: there is no such file, or it is not a picture.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise ClientError(f"{path} has {opened.width}x{opened.height} pixels; legal: up to {MOST_PIXELS:,}.")
            picture = ImageOps.exif_transpose(opened)
            if "A" in picture.getbands() or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                ground = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(ground, picture)
            picture = picture.convert("L")
    except FileNotFoundError:
        raise ClientError(f"there is no file {path}; give the path of a picture.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ClientError(f"{path} is not a picture that can be read ({type(error).__name__}).") from error
    border = np.asarray(picture)
    border = np.concatenate([border[0], border[-1], border[:, 0], border[:, -1]])
    if invert if invert is not None else np.median(border) > 127:
        picture = ImageOps.invert(picture)
    return (np.asarray(picture) if picture.size == (SIDE, SIDE) else _centred(picture)).reshape(-1)


def _centred(picture: "Image.Image") -> np.ndarray:
    """The ink of a picture at the size and place of MNIST's digits: 20x20, its centre of mass in the middle."""
    from PIL import Image, ImageOps

    picture = ImageOps.autocontrast(picture)
    box = picture.point(lambda value: value > FAINT and 255).getbbox()
    if box is None:
        return np.zeros((SIDE, SIDE), np.uint8)
    ink = ImageOps.contain(picture.crop(box), (DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.LANCZOS)
    weights = np.asarray(ink, float)
    total = max(weights.sum(), 1)
    place = []
    for axis, size in enumerate(ink.size):
        mean = (weights.sum(axis=axis) * (np.arange(size) + 0.5)).sum() / total
        place.append(min(max(round(SIDE / 2 - mean), 0), SIDE - size))
    result = Image.new("L", (SIDE, SIDE))
    result.paste(ink, (place[0], place[1]))
    return np.asarray(result)


def predict(images: np.ndarray, url: str, timeout: float = 30.0) -> list[dict[str, Any]]:
    """Label and probabilities of each image, as the server answers.

    Raises:
        ClientError: the server does not answer, or refuses.
    """
    predictions: list[dict[str, Any]] = []
    for start in range(0, len(images), PER_REQUEST):
        body = json.dumps({"inputs": images[start : start + PER_REQUEST].tolist()}).encode()
        try:
            request = urllib.request.Request(
                f"{url.rstrip('/')}/invocations", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=timeout) as response:
                predictions += json.load(response)["predictions"]
        except urllib.error.HTTPError as error:
            text = error.read(10_000).decode(errors="replace")
            try:
                text = json.loads(text)["message"]
            except (ValueError, KeyError, TypeError):
                text = " ".join(text.split())[:300]
            raise ClientError(f"{url} refused with status {error.code}: {text}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "reason", None) or f"{type(error).__name__}: {error}"
            raise ClientError(
                f"{url} does not answer as a model server ({reason}). Start one with `python -m serving`, or name it "
                "with --url."
            ) from error
    return predictions


def draw(images: np.ndarray, titles: Sequence[str], path: Path) -> None:
    """Writes a sheet of the images with their titles."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(5, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(2 * columns, 2.3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if place < len(images):
            axes.imshow(images[place].reshape(SIDE, SIDE), cmap="gray_r", vmin=0, vmax=255)
            axes.set_title(titles[place], fontsize=9)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ClientError(f"the sheet cannot be written to {path}: {error}") from error


def main() -> None:
    """Reads the command line, asks and prints."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m serving.client",
        description="Ask the model server which digit each picture shows, and print label and probability. A picture "
        "is made gray, its ink cut out, shrunk to 20x20 and centred on 28x28, as MNIST's digits are; one of 28x28 is "
        "left as it is. The model knows light digits on dark ground, so a picture whose border is light is inverted; "
        "--invert and --no-invert decide otherwise. Transparency is white.",
    )
    parser.add_argument("images", nargs="*", type=Path, metavar="image.png", help="PNG, JPEG, ...")
    parser.add_argument("--url", default="http://127.0.0.1:5001", help="the server (default: %(default)s)")
    parser.add_argument("--test-samples", type=whole(1, 10_000), metavar="N", help="ask about N images of the test set")
    parser.add_argument("--dataset", default="mnist", help="whose test set (default: %(default)s)")
    parser.add_argument("--invert", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--sheet", type=Path, metavar="out.png", help="write a sheet of the pictures and the answers")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name that the terminal cannot show is no reason to fail
    options = parser.parse_args()
    if not options.images and not options.test_samples:
        parser.error("nothing to ask about: give pictures, or --test-samples N")
    try:
        names, images, truths = _gather(options)
        answers = predict(images, options.url)
        titles = []
        for name, truth, answer in zip(names, truths, answers, strict=True):
            label = answer["label"]
            probability = answer["probabilities"][label]
            verdict = "" if truth is None else "  right" if truth == label else f"  wrong: it is {truth}"
            print(f"{name}: {label} ({probability:.1%}){verdict}")
            titles.append(f"{label} ({probability:.0%})" + ("" if truth in (None, label) else f", is {truth}"))
        if options.sheet:
            draw(images, titles, options.sheet)
            print(f"sheet: {options.sheet}")
    except ClientError as error:
        sys.exit(f"error: {error}")


def _gather(options: argparse.Namespace) -> tuple[list[str], np.ndarray, list[int | None]]:
    names = [str(path) for path in options.images]
    images = [read_image(path, options.invert) for path in options.images]
    truths: list[int | None] = [None] * len(images)
    if options.test_samples:
        from mlplab.checks import UnavailableError, UsageError
        from mlplab.data import load

        try:
            data = load(options.dataset)
        except (UnavailableError, UsageError) as error:
            raise ClientError(str(error)) from error
        test = data.test
        names += [f"{data.label} test image {place}" for place in range(min(options.test_samples, len(test)))]
        images += list(test.x[: options.test_samples])
        truths += test.y[: options.test_samples].tolist()
    return names, np.array(images), truths


if __name__ == "__main__":
    main()
