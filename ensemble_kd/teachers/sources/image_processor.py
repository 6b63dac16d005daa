"""What an image processor of transformers does, as ``Preprocess``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import one_line
from ensemble_kd.teachers.sources.preprocess import Interpolation, Preprocess, known_channels

FILE = "preprocessor_config.json"

CONVNEXT = "ConvNextImageProcessor"
PLAIN = (
    *("ViTImageProcessor", "DeiTImageProcessor", "BeitImageProcessor", "BitImageProcessor"),
    *("CLIPImageProcessor", "SiglipImageProcessor", "PvtImageProcessor"),
    *("MobileNetV1ImageProcessor", "MobileNetV2ImageProcessor"),
)
"""Processors that resize, crop, scale and normalise, as their settings say and in that order."""

RESAMPLE: dict[int, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""


def own_preprocess(transformers: Any, folder: Path, config: Any) -> Preprocess:
    """The steps of the processor in a folder.

    Args:
        transformers: the library.
        folder: holds ``preprocessor_config.json``.
        config: of the network.

    Raises:
        UserError: there is none, or it does more than these steps.
    """
    if not (folder / FILE).is_file():
        raise UserError(
            f"{folder}: expected {FILE} with the preprocessing of the network, found none; "
            "say it with preprocess: {...}"
        )
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as failure:  # the library raises many kinds
        raise UserError(f"{folder / FILE}: {one_line(failure)}") from failure
    kind = type(processor).__name__.removesuffix("Pil").removesuffix("Fast")
    if kind not in (*PLAIN, CONVNEXT):
        raise UserError(
            f"{folder / FILE}: {kind} has steps of its own that are not known here; say them with "
            "preprocess: {...}"
        )
    try:
        return _steps(processor, kind, config, folder)
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as failure:
        raise UserError(
            f"{folder / FILE}: expected the settings of a {kind}: {one_line(failure)}"
        ) from failure


def _steps(processor: Any, kind: str, config: Any, folder: Path) -> Preprocess:
    size, crop = _sides(processor, kind, folder)
    normal = bool(getattr(processor, "do_normalize", False))
    rescaled = bool(getattr(processor, "do_rescale", False))
    return Preprocess(
        size=size,
        crop=crop,
        interpolation="bilinear" if size is None else _interpolation(processor.resample, folder),
        middle="first",
        channels=known_channels(getattr(config, "num_channels", 3)),
        scale=255 * _numbers(processor, "rescale_factor")[0] if rescaled else 255.0,
        mean=_numbers(processor, "image_mean") if normal else 0.0,
        std=_numbers(processor, "image_std") if normal else 1.0,
    )


def _sides(
    processor: Any, kind: str, folder: Path
) -> tuple[int | tuple[int, int] | None, int | tuple[int, int] | None]:
    """Sizes to resize and to crop to."""
    cropped = None
    if getattr(processor, "do_center_crop", False):
        sides = processor.crop_size
        cropped = (int(sides["height"]), int(sides["width"]))
    if not getattr(processor, "do_resize", False):
        return None, cropped
    size = processor.size
    shortest = _side(size, "shortest_edge")
    if shortest is not None and _side(size, "longest_edge") is None:
        if kind != CONVNEXT:
            return shortest, cropped
        # As the class does it: small ones are cropped out of something larger.
        if shortest >= 384:
            return (shortest, shortest), cropped
        return int(shortest / processor.crop_pct), shortest
    height, width = _side(size, "height"), _side(size, "width")
    if height is None or width is None:
        raise UserError(
            f"{folder / FILE}: expected size with shortest_edge, or with height and width, "
            f"got {dict(size)}"
        )
    return (height, width), cropped


def _side(size: Any, name: str) -> int | None:
    value = size.get(name) if hasattr(size, "get") else getattr(size, name, None)
    return None if value is None else int(value)


def _numbers(processor: Any, name: str) -> tuple[float, ...]:
    value = getattr(processor, name)
    several = value if isinstance(value, list | tuple) else [value]
    if not several or not all(isinstance(each, int | float) for each in several):
        raise ValueError(f"{name} must be a number or several, got {value!r}")
    return tuple(map(float, several))


def _interpolation(resample: Any, folder: Path) -> Interpolation:
    number = getattr(resample, "value", resample)
    if number not in RESAMPLE:
        raise UserError(
            f"{folder / FILE}: expected resample to be one of "
            f"{', '.join(f'{key} ({name})' for key, name in RESAMPLE.items())}, got {number}"
        )
    return RESAMPLE[number]
