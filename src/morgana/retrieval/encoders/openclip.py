"""CLIP models by open_clip, differentiable from pixels in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from morgana import weights
from morgana.spec import nearest, part
from morgana.types import Embeddings, Pixels, SpecError, StoreError

BUNDLED = Path(__file__).parents[2] / "models" / "atlas-clip"
CONFIG = "open_clip_config.json"
ROWS = 256  # in one forward pass
ROWS_CPU = {"image": 16, "text": 64}  # fewer there: large activations are given back, and cleared pages fetched again


@part
class OpenCLIP:
    """An open_clip model as an encoder, in float32.

    `model` is "atlas" (the bundled one), a folder in open_clip's format (open_clip_config.json, its weights and its
    tokenizer), "hf-hub:org/name", or a name of open_clip's with the `pretrained` tag or file of its weights:
    `OpenCLIP("ViT-B-32", "laion2b_s34b_b79k")`. Images of any size are resized to the model's square, bicubic with
    antialiasing and without clamping, so that gradients reach every pixel; then comes the model's own mean and
    standard deviation. Raises SpecError for an unknown name or tag, StoreError for weights that are missing or NaN.
    """

    model: str
    pretrained: str | None = None

    @property
    def dimension(self) -> int:
        return int(self._config["embed_dim"])

    @property
    def image_size(self) -> int:
        """Side in pixels of the square that the image tower sees."""
        return self._side

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights, the preprocessing and the tokenizer's work."""
        tokens = self._tokenizer([weights.PROBE]).tolist()
        return weights.fingerprint(self._model, self._side, self._normal, tokens)

    def encode_image(self, pixels: Pixels) -> Embeddings:
        """(B, D) unit rows on the model's device; differentiable in `pixels`, (B, 3, H, W) in [0, 1]."""
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.shape[2] * pixels.shape[3]:
            raise SpecError(f"images of shape {tuple(pixels.shape)} for {self!r}; it wants (B, 3, H, W) in [0, 1]")
        images = pixels.to(self._device, torch.float32)
        if not len(images):
            return images.new_zeros((0, self.dimension))
        if images.shape[2:] != (self._side, self._side):
            images = functional.interpolate(images, (self._side, self._side), mode="bicubic", antialias=True)
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in self._normal)
        return self._encode("image", (images - mean) / std)

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        """(B, D) unit rows on the model's device; a text longer than the model's context is cut."""
        if not texts:
            return torch.zeros((0, self.dimension), device=self._device)
        return self._encode("text", self._tokenizer(list(texts)))

    def _encode(self, tower: str, rows: Tensor) -> Embeddings:
        size = ROWS_CPU[tower] if self._device.type == "cpu" else ROWS
        encode = getattr(self._model, f"encode_{tower}")
        features = torch.cat([encode(some.to(self._device)).float() for some in torch.split(rows, size)])
        return functional.normalize(features, dim=1)

    @cached_property
    def _address(self) -> str:
        """The model as open_clip names it."""
        if self.model.startswith(("hf-hub:", "local-dir:")):
            return self.model
        folder = BUNDLED if self.model == "atlas" else Path(self.model)
        if folder.is_dir() and (folder / CONFIG).is_file():
            return f"local-dir:{folder}"
        if self.model == "atlas":
            raise StoreError(f"the bundled retriever is not in {BUNDLED}; train it: morgana train retriever")
        if folder.is_dir():
            raise StoreError(f"{folder} holds no {CONFIG}; name a folder in open_clip's format")
        return self._listed()

    def _listed(self) -> str:
        """A name of open_clip's own list, whose weights are named as well."""
        import open_clip

        if self.model not in (known := open_clip.list_models()):
            hint = nearest(self.model, known)
            raise SpecError(f"open_clip knows no model {self.model!r}{hint} and it is no folder; 'atlas' is bundled")
        tags = open_clip.list_pretrained_tags_by_model(self.model)
        if self.pretrained is None:
            raise SpecError(f"{self!r} names no weights; add one of {', '.join(tags) or 'your files'}")
        if self.pretrained not in tags and not Path(self.pretrained).is_file():
            hint = nearest(self.pretrained, tags)
            raise SpecError(
                f"{self.model} has no weights {self.pretrained!r}{hint}; it has {', '.join(tags) or 'none'}"
            )
        return self.model

    @cached_property
    def _model(self) -> Any:
        import open_clip

        address = self._address
        try:
            with weights.hub(address):
                made = open_clip.create_model(
                    address, self.pretrained, device=self._device, require_pretrained=True, weights_only=True
                )
        except Exception as error:  # open_clip, torch, safetensors and the hub each raise their own
            raise StoreError(f"cannot load {self!r}: {weights.refused(error)}") from error
        weights.ready(made, repr(self))
        return made

    @cached_property
    def _tokenizer(self) -> Any:
        import open_clip

        address = self._address
        try:
            with weights.hub(address):
                return open_clip.get_tokenizer(address)
        except Exception as error:  # as above
            raise StoreError(f"cannot load the tokenizer of {self!r}: {weights.refused(error)}") from error

    @cached_property
    def _config(self) -> dict[str, Any]:
        import open_clip

        address = self._address
        return dict(open_clip.get_model_config(address))

    @cached_property
    def _side(self) -> int:
        size = self._model.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        if height != width:
            raise StoreError(f"{self!r} sees images of {height} × {width}; only square models are supported")
        return int(height)

    @cached_property
    def _normal(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The model's own mean and standard deviation."""
        config = self._model.visual.preprocess_cfg
        return tuple(map(float, config["mean"])), tuple(map(float, config["std"]))

    @cached_property
    def _device(self) -> torch.device:
        return weights.device()
