"""Image files as the inputs of samples: looked at when they are opened, decoded when read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, cached_property
from io import BytesIO
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ensemble_kd.errors import UserError

S = TypeVar("S")
T = TypeVar("T")

MODES = {1: "L", 3: "RGB"}
"""What Pillow calls images of that many channels."""

GREY = ("1", "L", "La", "LA")
COLOUR = ("P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")

SIDEWAYS = range(5, 9)
"""Values of EXIF's orientation that exchange height and width."""


class Pictures:
    """Image files of one shape, decoded each time that rows of them are selected.

    They become bytes (channels, height, width): turned as EXIF says, then converted to grey or RGB
    as Pillow does it (grey is ITU-R 601-2 luma, grey to RGB repeats it, palettes are looked up,
    transparency is dropped), then scaled, antialiased, until the shorter side fits ``size``, and
    cropped in the middle. Of several frames the first counts.

    Args:
        folder: where the files are.
        names: (n,) their paths in it.
        channels: 1 for grey, 3 for RGB; None for those of the first file.
        size: height and width; None for that of the files, which must be the same then.

    Raises:
        UserError: a header cannot be read, has more than 8 bits a channel, or the files differ in
            size and none is given.
    """

    dtype = torch.uint8

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        channels: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.folder = folder
        self.names = tuple(names)
        self.size = size
        self._kept: Tensor | None = None
        first: tuple[int, int] | None = None
        # Every file is looked at, so that most damage is found before any training.
        for name, (mode, found) in zip(self.names, each(self._header, self.names), strict=True):
            channels = channels or (1 if mode in GREY else 3)
            first = first or found
            if size is None and found != first:
                raise UserError(
                    f"{folder.absolute()}: images must have one size, or set data.size=[height,"
                    f"width] to scale them; {self.names[0]} is {first[0]}x{first[1]}, "
                    f"{name} is {found[0]}x{found[1]} (height x width)"
                )
        if channels is None or first is None:
            raise ValueError("names must hold at least one file, got none")
        self.shape = (len(self.names), channels, *(size or first))

    @property
    def kept(self) -> bool:
        """Whether the decoded images are in memory."""
        return self._kept is not None

    def keep(self) -> None:
        """Decode all images now, for good: n * channels * height * width bytes."""
        if self._kept is None:
            pixels = torch.empty(self.shape, dtype=self.dtype)
            array = pixels.numpy()
            for row, image in enumerate(each(self._decoded, self.names)):
                array[row] = image
            self._kept = pixels

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        """Some images, like ``torch.Tensor.index_select``.

        Args:
            dim: 0.
            rows: (b,) int64.

        Returns:
            (b, channels, height, width) uint8.

        Raises:
            UserError: a file cannot be decoded, or is of another size than its header said.
        """
        if dim != 0:
            raise ValueError(f"dim must be 0, got {dim}")
        if self._kept is not None:
            return self._kept.index_select(0, rows)
        pixels = torch.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        array = pixels.numpy()
        for place, row in enumerate(rows.tolist()):
            array[place] = self._decoded(self.names[row])
        return pixels

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides the pixels: paths and contents, shape, and the decoder."""
        from PIL import __version__ as decoder

        said = hashlib.sha256(repr((self.shape, self.size, decoder)).encode())
        for name, (length, content) in zip(
            self.names, each(self._content, self.names), strict=True
        ):
            said.update(repr((name, length, content)).encode())
        return said.hexdigest()

    def _content(self, name: str) -> tuple[int, str]:
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise _unreadable(str((self.folder / name).absolute()), error) from error
        return len(content), hashlib.sha256(content).hexdigest()

    def _header(self, name: str) -> tuple[str, tuple[int, int]]:
        """Mode, and height and width after turning."""
        path = self.folder / name
        return header(path, str(path.absolute()))

    def _decoded(self, name: str) -> npt.NDArray[np.uint8]:
        """(channels, height, width)."""
        path = self.folder / name
        pixels = decoded(path, str(path.absolute()), self.shape[1], self.size)
        if pixels.shape != self.shape[1:]:
            raise UserError(
                f"{path.absolute()}: images must have one size, {self.shape[2]}x{self.shape[3]}, "
                f"got {pixels.shape[1]}x{pixels.shape[2]} (height x width); set "
                "data.size=[height,width]"
            )
        return pixels


def header(source: Path | BytesIO, where: str) -> tuple[str, tuple[int, int]]:
    """Pillow's mode of an image, and its height and width after turning; nothing is decoded.

    Args:
        source: an image file, or its content.
        where: what the error message calls it.

    Raises:
        UserError: it is no image, or has more than 8 bits a channel.
    """
    with _open(source, where) as image:
        if image.mode not in (*GREY, *COLOUR):
            raise UserError(
                f"{where}: images must have 8 bits a channel, got Pillow's mode {image.mode}; "
                "convert the files"
            )
        width, height = image.size
        # Without the first condition, Pillow would decode a PNG to look for what follows it.
        turned = "exif" in image.info and image.getexif().get(274) in SIDEWAYS
        return image.mode, (width, height) if turned else (height, width)


def decoded(
    source: Path | BytesIO, where: str, channels: int, size: tuple[int, int] | None
) -> npt.NDArray[np.uint8]:
    """(channels, height, width), as ``Pictures`` says.

    Args:
        source: an image file, or its content.
        where: what the error message calls it.
        channels: 1 or 3.
        size: height and width; None for its own.

    Raises:
        UserError: it cannot be decoded.
    """
    from PIL import Image, ImageOps

    with _open(source, where) as image:
        try:
            if size is not None:
                # JPEG is decoded at a half, a quarter or an eighth where that is still twice
                # as large as needed: a photograph takes a fraction of the time.
                image.draft(None, (2 * max(size),) * 2)
            turned = ImageOps.exif_transpose(image)
            if "transparency" in turned.info:
                turned = turned.convert("RGBA")
            said = turned.convert(MODES[channels])
            if size is not None:
                said = ImageOps.fit(said, (size[1], size[0]), Image.Resampling.BILINEAR)
        except Exception as error:  # each format fails in its own way
            raise _unreadable(where, error) from error
    return np.asarray(said).reshape(said.height, said.width, -1).transpose(2, 0, 1)


@cache
def endings() -> frozenset[str]:
    """Endings of the files that are taken for images, in small letters."""
    from PIL import Image

    known = formats()
    return frozenset(
        ending for ending, format in Image.registered_extensions().items() if format in known
    )


@cache
def formats() -> tuple[str, ...]:
    """All that Pillow reads, without EPS, which runs another program."""
    from PIL import Image

    Image.init()
    return tuple(sorted(set(Image.OPEN) - {"EPS"}))


def _open(source: Path | BytesIO, where: str) -> Any:
    from PIL import Image

    try:
        return Image.open(source, formats=formats())
    except Exception as error:  # each format fails in its own way
        raise _unreadable(where, error) from error


def _unreadable(where: str, error: Exception) -> UserError:
    # Pillow's own words often hold the path once more.
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    why = " ".join(why.split()).replace(repr(where), "it").replace(where, "it")
    return UserError(f"{where} cannot be read as an image ({why}); repair, replace or remove it")


def each(work: Callable[[S], T], names: Iterable[S]) -> Iterator[T]:
    """What the work says of each name, in order, by several threads: Pillow lets others run."""
    with ThreadPool(min(16, 2 * (os.cpu_count() or 1))) as pool:
        yield from pool.imap(work, names, chunksize=32)
