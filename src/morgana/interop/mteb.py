"""Any encoder as an mteb model, so that mteb's tasks measure it; mteb is imported when it is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from morgana.corpus.images import to_rgb, upright
from morgana.spec import parse
from morgana.types import Encoder, Pixels, SpecError


class Model:
    """`mteb.evaluate(Model("OpenCLIP('atlas')"), tasks)`; an encoder without an image tower takes texts alone.

    Images go the way that Morgana's own go: whole, to pixels in [0, 1], resized inside the encoder. A document with
    text and image is embedded as the normalised sum of both. There are no prompts: query and document are alike.
    """

    def __init__(self, encoder: Encoder | str) -> None:
        self.encoder: Encoder = parse(encoder) if isinstance(encoder, str) else encoder
        if not hasattr(self.encoder, "encode_text"):
            raise SpecError(f"{encoder!r} is no encoder; `morgana list encoder` shows those there are")

    @cached_property
    def mteb_model_meta(self) -> Any:
        """The encoder's spec and the hash of its weights, as mteb keeps them with its results."""
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        spec = repr(self.encoder)
        return ModelMeta(
            loader=None,
            name=f"morgana/{type(self.encoder).__name__}-{hashlib.sha256(spec.encode()).hexdigest()[:8]}",
            revision=self.encoder.fingerprint[:32],
            release_date=None,
            languages=None,
            n_parameters=None,
            memory_usage_mb=None,
            max_tokens=None,
            embed_dim=self.encoder.dimension,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name=ScoringFunction.COSINE,
            use_instructions=False,
            training_datasets=None,
            modalities=["text", "image"] if self.encoder.image_size else ["text"],
            experiment_kwargs={"spec": spec},
        )

    def encode(self, inputs: Iterable[Mapping[str, Any]], **kwargs: Any) -> Any:
        """(N, D) float32 rows of unit length, as a NumPy array; mteb's other arguments change nothing."""
        with torch.no_grad():
            return torch.cat([self._batch(batch) for batch in inputs]).numpy()

    def _batch(self, batch: Mapping[str, Any]) -> Tensor:
        rows = []
        if "text" in batch:
            rows.append(self.encoder.encode_text([str(text) for text in batch["text"]]).cpu())
        if "image" in batch:
            rows.append(torch.cat([self.encoder.encode_image(pixels(image)).cpu() for image in batch["image"]]))
        if not rows:
            raise SpecError(f"a batch of {', '.join(batch)}; Morgana's encoders embed text and image")
        return rows[0].float() if len(rows) == 1 else nn.functional.normalize(rows[0].float() + rows[1].float(), dim=1)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """(N, M) cosines."""
        return unit(embeddings1) @ unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """(N,) cosines of the rows with each other."""
        return (unit(embeddings1) * unit(embeddings2)).sum(dim=-1)


def unit(rows: Any) -> Tensor:
    made = torch.as_tensor(rows, dtype=torch.float32)
    return nn.functional.normalize(made.reshape(-1, made.shape[-1]), dim=1)


def pixels(image: Any) -> Pixels:
    """(1, 3, H, W) float32 in [0, 1] from a Pillow image, or from a (3, H, W) tensor of grey levels or of [0, 1]."""
    if isinstance(image, Tensor):
        levels = image[None].float()
        return levels / 255 if image.dtype == torch.uint8 else levels
    return torch.from_numpy(to_rgb(upright(image), Path("an image of mteb"))).permute(2, 0, 1)[None].contiguous()
