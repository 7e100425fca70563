"""Why an uploaded image file is refused, in words for its sender; and the guard around the decoders."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


class ImageError(ValueError):
    """The file cannot be used. Its text names the value and the remedy, and quotes nothing of the file."""


class NotAnImage(ImageError):
    """The bytes are no image file at all."""


class TruncatedImage(ImageError):
    """The file begins like an image but cannot be decoded to its end."""


class UnsupportedImage(ImageError):
    """An image, but of a kind that is not read here."""


class TooManyPixels(ImageError):
    """Its header announces more pixels than are taken."""


class TooFewPixels(ImageError):
    """Too small to show a jaw."""


class NotARadiograph(ImageError):
    """An image of one or two gray levels: blank, or a mask in its image's place."""


class NotBinary(ImageError):
    """A mask with more than a background and one foreground value."""


class EmptyMask(ImageError):
    """A mask without foreground."""


class FullMask(ImageError):
    """A mask without background, or with a background that is not 0."""


class MaskSizeMismatch(ImageError):
    """A mask and its image differ in size."""


MIN_SIDE = 32


class _NoWarnings:
    """A context without warnings, for many threads at once: their filter belongs to the whole process.

    The first that enters changes it, the last that leaves puts it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = ExitStack()
                self._before.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._before.close()


_without_warnings = _NoWarnings()


@contextmanager
def decoding(kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises inside into an ImageError, and drop its warnings.

    Both may quote the file, and so a patient: neither reaches an answer or a log.
    """
    with _without_warnings:
        try:
            yield
        except (ImageError, MemoryError):  # the latter says nothing of the file, only of what is allowed here
            raise
        except Exception:
            raise TruncatedImage(
                f"the {kind} file cannot be decoded: it is cut short or damaged, or of a rare kind; "
                "export it again, if need be as PNG, and send the whole file"
            ) from None


def check_pixel_count(width: int, height: int, max_pixels: int) -> None:
    """Raise TooManyPixels or TooFewPixels; called with what the header says, before anything is decoded."""
    if width * height > max_pixels:
        raise TooManyPixels(
            f"the image is {width} x {height} pixels, {width * height:,} in all, and at most "
            f"{max_pixels:,} are taken; scale it down (the work is done at 512 x 256)"
        )
    if min(width, height) < MIN_SIDE:
        raise TooFewPixels(
            f"the image is {width} x {height} pixels, and both sides must be at least {MIN_SIDE}; "
            "send the radiograph as the scanner exports it"
        )
