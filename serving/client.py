"""`python -m serving.client image.png …`: asks the model server what a picture shows.

The picture is sent as it is: the server makes of it what its model was trained on.
"""

import argparse
import base64
import io
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MOST_PIXELS, SIDE = 50_000_000, 1_000
"""Of a picture's file; the longer side of what is sent."""
PER_REQUEST = 16


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


def read_image(path: Path) -> bytes:
    """A picture as a PNG that a server takes, at most `SIDE` pixels wide and high; transparency is white.

    Args:
        path: a PNG, JPEG or whatever else Pillow reads.

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
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
            elif picture.mode not in ("L", "RGB"):
                picture = picture.convert("RGB")
            picture.thumbnail((SIDE, SIDE))
            content = io.BytesIO()
            picture.save(content, "PNG")
    except FileNotFoundError:
        raise ClientError(f"there is no file {path}; give the path of a picture.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ClientError(f"{path} is not a picture that can be read ({type(error).__name__}).") from error
    return content.getvalue()


def predict(examples: Sequence[Any], url: str, timeout: float = 30.0) -> list[dict[str, Any]]:
    """Label and probabilities of each picture, of its file's bytes or of its numbers, as the server answers.

    Raises:
        ClientError: the server does not answer, or refuses.
    """
    told = [{"b64": base64.b64encode(one).decode()} if isinstance(one, bytes) else one.tolist() for one in examples]
    predictions: list[dict[str, Any]] = []
    for start in range(0, len(told), PER_REQUEST):
        body = json.dumps({"instances": told[start : start + PER_REQUEST]}).encode()
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


def draw(examples: Sequence[Any], titles: Sequence[str], path: Path) -> None:
    """Writes a sheet of the pictures with their titles."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    columns = min(5, len(examples))
    rows = -(-len(examples) // columns)
    figure = Figure(figsize=(2 * columns, 2.3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if place < len(examples):
            one = examples[place]
            if isinstance(one, bytes):
                axes.imshow(np.asarray(Image.open(io.BytesIO(one)).convert("RGB")))
            else:
                axes.imshow(one.reshape(round(one.size**0.5), -1), cmap="gray_r", vmin=0, vmax=255)
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
        description="Ask the model server what each picture shows, and print label and probability. The server makes "
        "of a picture what its model was trained on: of MNIST's digits light ink on dark ground, as large and in the "
        "place that theirs has.",
    )
    parser.add_argument("images", nargs="*", type=Path, metavar="image.png", help="PNG, JPEG, ...")
    parser.add_argument("--url", default="http://127.0.0.1:5001", help="the server (default: %(default)s)")
    parser.add_argument("--test-samples", type=whole(1, 10_000), metavar="N", help="ask about N images of the test set")
    parser.add_argument("--dataset", default="mnist", help="whose test set (default: %(default)s)")
    parser.add_argument("--sheet", type=Path, metavar="out.png", help="write a sheet of the pictures and the answers")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name that the terminal cannot show is no reason to fail
    options = parser.parse_args()
    if not options.images and not options.test_samples:
        parser.error("nothing to ask about: give pictures, or --test-samples N")
    try:
        names, examples, truths = _gather(options)
        answers = predict(examples, options.url)
        titles = []
        for name, truth, answer in zip(names, truths, answers, strict=True):
            label = answer["label"]
            probability = max(answer["probabilities"])
            verdict = "" if truth is None else "  right" if truth == label else f"  wrong: it is {truth}"
            print(f"{name}: {label} ({probability:.1%}){verdict}")
            titles.append(f"{label} ({probability:.0%})" + ("" if truth in (None, label) else f", is {truth}"))
        if options.sheet:
            draw(examples, titles, options.sheet)
            print(f"sheet: {options.sheet}")
    except ClientError as error:
        sys.exit(f"error: {error}")


def _gather(options: argparse.Namespace) -> tuple[list[str], list[Any], list[int | None]]:
    names = [str(path) for path in options.images]
    examples: list[Any] = [read_image(path) for path in options.images]
    truths: list[int | None] = [None] * len(examples)
    if options.test_samples:
        from mlplab.checks import UnavailableError, UsageError
        from mlplab.data import load

        try:
            data = load(options.dataset)
        except (UnavailableError, UsageError) as error:
            raise ClientError(str(error)) from error
        test = data.test
        names += [f"{data.label} test image {place}" for place in range(min(options.test_samples, len(test)))]
        examples += list(test.x[: options.test_samples])
        truths += test.y[: options.test_samples].tolist()
    return names, examples, truths


if __name__ == "__main__":
    main()
