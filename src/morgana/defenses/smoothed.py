"""Randomised smoothing of a retriever: the mean embedding of noisy copies of an image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch.nn.functional import normalize

from morgana.defenses._noise import check_noise, noisy
from morgana.seeds import derive
from morgana.spec import part
from morgana.types import Embeddings, Encoder, Pixels

AT_ONCE = 64  # images that the inner encoder sees in one call


@part
class Smoothed:
    """An encoder around an encoder: the normalised mean of the embeddings of n noisy copies of each image.

    Whoever differentiates gets fresh noise from the current seeded scope at each call, so attacking a
    `Smoothed` is the adaptive (EOT) attack. Whoever does not (indexing, searching, judging) gets noise that
    depends on `seed` and the image's 8-bit content alone: the same file has the same vector, alone or in any
    batch, today or tomorrow. An attacker who may query without gradients meets that fixed noise, as at a
    deployed system; who fears one that knows it as well, keeps `seed` secret.

    Sigma is in pixel units at the size in which an image comes: resizing a large image averages noise away.
    With n = 0 or sigma = 0 it is the inner encoder. Texts pass through.
    """

    encoder: Encoder
    sigma: float = 0.1  # pixel units
    n: int = 10  # noisy copies; the image itself is not one of them
    seed: int = 0

    def __post_init__(self) -> None:
        check_noise(self.sigma, self.n, self)

    @property
    def dimension(self) -> int:
        return self.encoder.dimension

    @property
    def image_size(self) -> int:
        return self.encoder.image_size

    @property
    def fingerprint(self) -> str:
        own = repr((self.encoder.fingerprint, "Smoothed", float(self.sigma), self.n, self.seed))
        return hashlib.blake2b(own.encode(), digest_size=16).hexdigest()

    def encode_image(self, pixels: Pixels) -> Embeddings:
        if not self.n or not self.sigma or not len(pixels):
            return self.encoder.encode_image(pixels)
        return torch.cat([self.smooth(images) for images in torch.split(pixels, max(1, AT_ONCE // self.n))])

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        return self.encoder.encode_text(texts)

    def smooth(self, pixels: Pixels) -> Embeddings:
        copies = noisy(pixels, self.sigma, self.n) if attacked(pixels) else self.fixed(pixels)
        parts = [self.encoder.encode_image(some) for some in torch.split(copies.flatten(0, 1), AT_ONCE)]
        return normalize(torch.cat(parts).reshape(len(pixels), self.n, -1).mean(dim=1), dim=1)

    def fixed(self, pixels: Pixels) -> Pixels:
        """Noisy copies, (B, n, 3, H, W), that follow from the seed and each image."""
        sources = [torch.Generator().manual_seed(derive(self.seed, "Smoothed", content(p))) for p in pixels]
        images = zip(torch.split(pixels, 1), sources, strict=True)
        return torch.cat([noisy(image, self.sigma, self.n, source) for image, source in images])


def attacked(pixels: Pixels) -> bool:
    """Somebody differentiates with respect to the pixels."""
    return pixels.requires_grad and torch.is_grad_enabled()


def content(image: Pixels) -> str:
    """A hash of the (3, H, W) image as its PNG would hold it, in 8 bits."""
    levels = (image.detach() * 255).round().to(torch.uint8).cpu().contiguous().numpy()
    return hashlib.blake2b(repr(levels.shape).encode() + levels.tobytes(), digest_size=16).hexdigest()
