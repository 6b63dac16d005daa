"""How networks of transformers see images, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kd.teachers.sources import Preprocess, Told

Refusal = Callable[[Callable[[], object]], str]


def edited(folder: Path, file: str = "config.json", **changes: Any) -> None:
    said = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**said, **changes}))


class TestImages:
    def edit(self, case: Any, **changes: Any) -> None:
        edited(Path(case.source.path), "preprocessor_config.json", **changes)

    def steps(self, case: Any) -> Preprocess:
        network: Any = case.source.load(case.told).network
        found: Preprocess = network.prepare[1].preprocess
        return found

    @pytest.mark.parametrize(
        ("kind", "changes"),
        [
            ("ViT", {"size": {"height": 8, "width": 8}, "resample": 3}),
            ("ViT", {"size": {"height": 8, "width": 8}, "do_normalize": False}),
            ("ViT", {"size": {"height": 8, "width": 8}, "rescale_factor": 0.01, "resample": 0}),
            ("DeiT", {"size": {"height": 12, "width": 10}, "crop_size": {"height": 8, "width": 8}}),
            ("Bit", {"size": {"shortest_edge": 9}, "crop_size": {"height": 8, "width": 8}}),
            ("Bit", {"size": {"shortest_edge": 11}, "crop_size": {"height": 8, "width": 8}}),
            ("CLIP", {"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}}),
            ("ConvNext", {"size": {"shortest_edge": 8}, "crop_pct": 0.7}),
            ("ConvNext", {"size": {"shortest_edge": 400}, "resample": 2}),
            ("Beit", {"size": {"height": 10, "width": 10}, "do_center_crop": False}),
        ],
    )
    def test_does_what_the_processor_does(
        self, kind: str, changes: dict[str, Any], tmp_path: Path
    ) -> None:
        import transformers

        from ensemble_kd.teachers.sources.image_processor import own_preprocess
        from ensemble_kd.teachers.sources.preprocess import preparing

        said = {"image_processor_type": f"{kind}ImageProcessor", **changes}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
        processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
        config = transformers.ViTConfig(num_channels=3)
        preprocess = own_preprocess(transformers, tmp_path, config)
        # Away from black and white, where Pillow cuts bicubic overshoot between its two passes.
        raw = torch.randint(64, 192, (2, 3, 14, 11), dtype=torch.uint8)
        expected = processor(list(raw.numpy()), return_tensors="pt")["pixel_values"]
        told = Told((3, 14, 11), ("a", "b"))
        found = preparing(preprocess, told)(raw / 255)
        assert found.shape == expected.shape
        # It rounds to bytes where it resizes, after widths and after heights.
        step = preprocess.scale / 255 / float(torch.tensor(preprocess.std).min())
        assert (found - expected).abs().max() <= 1.3 * step

    def test_a_network_of_grey_images_gets_them(self, make: Any) -> None:
        import transformers

        from ensemble_kd.teachers.sources.image_processor import own_preprocess

        folder = Path(make("huggingface_images").source.path)
        for channels, made in ((1, 1), (3, 3), (4, None)):
            config = transformers.ViTConfig(num_channels=channels)
            assert own_preprocess(transformers, folder, config).channels == made

    def test_its_own_may_be_replaced(self, make: Any) -> None:
        case = make("huggingface_images")
        source = replace(case.source, preprocess=Preprocess(size=(8, 8)))
        assert self.steps(replace(case, source=source)) == Preprocess(size=(8, 8))
        assert source.load(case.told).digest != case.source.load(case.told).digest

    def test_what_is_refused(self, make: Any, refusal: Refusal) -> None:
        case = make("huggingface_images")
        file = Path(case.source.path, "preprocessor_config.json")

        def line() -> str:
            return refusal(lambda: case.source.load(case.told))

        self.edit(case, resample=1)
        assert (
            "expected resample to be one of 0 (nearest), 2 (bilinear), 3 (bicubic), got 1" in line()
        )
        self.edit(case, resample=None)
        assert "expected resample to be one of" in line()
        self.edit(case, resample=2, image_mean=None)
        assert "image_mean must be a number or several, got " in line()
        self.edit(case, image_mean=[0.5] * 3, image_std=[0, 0, 0])
        assert "std must be > 0, got (0.0, 0.0, 0.0)" in line()
        self.edit(case, image_std=[0.5] * 3, rescale_factor="half")
        assert "preprocessor_config.json: " in line()
        self.edit(case, rescale_factor=1 / 255, size={"longest_edge": 8})
        assert "preprocessor_config.json: " in line()
        self.edit(case, image_processor_type="LevitImageProcessor")
        assert "LevitImageProcessor has steps of its own that are not known here" in line()
        file.write_text("{")
        assert "preprocessor_config.json: " in line()
        file.unlink()
        assert "expected preprocessor_config.json" in line()
        assert "say it with preprocess" in line()
