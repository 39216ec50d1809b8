"""Trains a retriever of aerial photographs: an open_clip model with a timm ResNet-18 tower, from scratch on AID.

Its weights never enter the repository: AID is for academic use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from morgana.corpus.aid import AID, Tile
from morgana.corpus.clouds import maps_for
from morgana.models import _aid_words as words
from morgana.models._aid_lessons import Batch, Lessons, photographs
from morgana.models.feed import behind, feed
from morgana.models.loop import Recipe, train
from morgana.models.retriever import MEAN, STD, write, write_config
from morgana.models.tokenizer import learn
from morgana.seeds import seeded

SIZE, FIRST, GROWN = 96, 64, 0.75  # side in pixels, at first, and from which part of the steps the full side
BATCH = 128
EXACT = 0.2  # share of a pair's target that is its own text; the rest goes to all texts of its key
VOCABULARY = 1536
WIDE = 512  # channels from which a convolution of these small maps is faster as a product
SETTLING = 16  # batches that the batch norms' final statistics are taken over
TEXT_STEPS = 350  # batches of the texts alone: the few captions are known by heart long before the photographs are
MODEL: dict[str, Any] = {
    "embed_dim": 192,
    "custom_text": True,
    "vision_cfg": {"timm_model_name": "resnet18", "timm_pool": "avg", "timm_proj": "linear", "image_size": SIZE},
    "text_cfg": {
        "context_length": 48,
        "vocab_size": VOCABULARY,
        "hf_tokenizer_name": "aid",
        "width": 128,
        "heads": 2,
        "layers": 2,
        "pool_type": "eos",
        "eos_id": 2,
        "pad_id": 0,
    },
}


def train_aid(
    root: Path,
    clouds: Path,
    out: Path,
    steps: int = 5000,
    seed: int = 0,
    device: str = "cpu",
    limit: int | None = None,
    batch: int = BATCH,
    rate: float = 1.5e-3,
    text_steps: int = TEXT_STEPS,
) -> None:
    """Train for `steps` batches on the train split, the text tower anew for `text_steps`, and write `out`; resumes.

    Naturally hazy tiles are left out, so that all of them are unseen when they are judged; of the cloud maps, those
    that are for judging are left out. Label hits on the dev split are reported on the way and decide nothing.
    `limit` takes so many tiles, for a quick look.
    """
    corpus, work = AID(str(root), split="train", haze=False), out / "training"
    tiles = corpus.tiles()[:: max(1, len(corpus.tiles()) // limit)] if limit else corpus.tiles()
    maps_for(clouds, "train")  # missing maps are named before the long decoding
    lessons = Lessons(tiles, photographs(tiles), clouds, seed, batch)
    write_tokenizer(out, tiles)
    with seeded(seed, "aid", "weights"):
        model = build().to(device, memory_format=torch.channels_last)
    from open_clip import get_tokenizer

    learner = Learner(model, get_tokenizer(f"local-dir:{out}"), device)
    batches = feed(partial(drawn, lessons, steps), behind(work), steps)
    exam = Exam(AID(str(root)), None if limit is None else limit // 2)

    def report(_: int) -> str:
        settle(learner, lessons, steps)
        return exam(learner)

    every = max(1, steps // 5)
    recipe = Recipe(steps=steps, rate=rate, weight_decay=0.05, cooldown=0.5)
    train(model, lambda step: learner.loss(next(batches)), recipe, work, "aid", seed, report, every)
    settle(learner, lessons, steps)
    texts = Recipe(steps=text_steps, rate=rate, weight_decay=0.05, cooldown=0.5, warmup=0.08)
    teach_texts(learner, lessons, steps, texts, work / f"text-{steps}-{text_steps}", exam)
    write(model, out)


def teach_texts(
    learner: Learner, lessons: Lessons, steps: int, recipe: Recipe, work: Path, exam: Callable[[Learner], str]
) -> None:
    """Train the text tower alone, from random weights, on the image tower as `steps` batches left it; resumes."""
    model = learner.model
    with seeded(lessons.seed, "aid", "text"):
        fresh = build().to(learner.device)
    model.text.load_state_dict(fresh.text.state_dict())
    model.logit_scale.data.copy_(fresh.logit_scale)
    model.visual.eval().requires_grad_(False)
    batches = feed(partial(later, lessons, steps + SETTLING), behind(work), recipe.steps)
    last = recipe.steps
    train(
        model,
        lambda _: learner.loss(next(batches)),
        recipe,
        work,
        "aid text",
        lessons.seed,
        lambda _: exam(learner),
        last,
    )


def drawn(lessons: Lessons, steps: int, step: int) -> Batch:
    return lessons.batch(step, FIRST if step < GROWN * steps else SIZE)


def later(lessons: Lessons, first: int, step: int) -> Batch:
    return lessons.batch(first + step, SIZE)


def build() -> Any:
    """The open_clip model of `MODEL` with random weights."""
    from open_clip.model import CustomTextCLIP

    text = {k: v for k, v in MODEL["text_cfg"].items() if k != "hf_tokenizer_name"}
    model = CustomTextCLIP(embed_dim=MODEL["embed_dim"], vision_cfg=MODEL["vision_cfg"], text_cfg=text)
    for module in model.visual.modules():
        if isinstance(module, nn.Conv2d) and module.out_channels >= WIDE and module.kernel_size == (3, 3):
            module.forward = partial(as_product, module)  # type: ignore[method-assign]
    return model


def as_product(conv: nn.Conv2d, pixels: Tensor) -> Tensor:
    """A square convolution as one matrix product: three times as fast on a CPU where 2 × 2 cells are 512 wide.

    Where nothing is learnt it is left as it is: without gradients that product is eight times slower in bfloat16.
    """
    if not (torch.is_grad_enabled() and conv.weight.requires_grad):
        plain: Tensor = nn.Conv2d.forward(conv, pixels)
        return plain
    size, stride, margin = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    height, width = ((side + 2 * margin - size) // stride + 1 for side in pixels.shape[2:])
    patches = functional.unfold(pixels, size, padding=margin, stride=stride).transpose(1, 2)  # (B, cells, C · size²)
    cells = functional.linear(patches, conv.weight.flatten(1), conv.bias)
    return cells.transpose(1, 2).view(len(pixels), -1, height, width)


def write_tokenizer(out: Path, tiles: Sequence[Tile]) -> None:
    raw = out / "training" / "tokenizer.json"
    if not raw.exists():
        labels = tuple(dict.fromkeys(t.label for t in tiles))
        learn(raw, words.vocabulary(labels, tuple(c for t in tiles for c in t.captions)), VOCABULARY)
    write_config(out, raw, MODEL)


@dataclass(frozen=True, eq=False)
class Learner:
    """The model with its tokenizer, in bfloat16 where that is safe."""

    model: Any
    tokenizer: Any
    device: str

    def loss(self, batch: Batch) -> Tensor:
        texts = list(dict.fromkeys(batch.texts))
        with torch.autocast(self.device, dtype=torch.bfloat16):
            image, text = self.images(batch.images), self.texts(texts)
        return contrast(image.float(), text.float(), self.model.logit_scale.exp(), targets(batch, texts))

    def images(self, pixels: Tensor) -> Tensor:
        """(B, D) unit rows of uint8 pixels."""
        ready = ((pixels.to(self.device).float() / 255 - MEAN) / STD).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.model.encode_image(ready, normalize=True)
        return features

    def texts(self, texts: list[str]) -> Tensor:
        """(B, D) unit rows."""
        features: Tensor = self.model.encode_text(self.tokenizer(texts).to(self.device), normalize=True)
        return features


def targets(batch: Batch, texts: list[str]) -> Tensor:
    """(B, T) what each image should match: in part its own text, in part every text that fits its key."""
    row = {text: i for i, text in enumerate(texts)}
    fits: list[frozenset[str]] = [frozenset()] * len(texts)
    for text, keys in zip(batch.texts, batch.fits, strict=True):
        fits[row[text]] = fits[row[text]] | keys
    same = torch.tensor([[key in keys for keys in fits] for key in batch.keys]).float()
    own = functional.one_hot(torch.tensor([row[t] for t in batch.texts[: len(batch.keys)]]), len(texts)).float()
    return EXACT * own + (1 - EXACT) * same / same.sum(1, keepdim=True)


def contrast(image: Tensor, text: Tensor, scale: Tensor, target: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy with soft targets (B, T); texts that no image matches are no queries."""
    logits, target = scale * image @ text.T, target.to(image)
    asked = target.sum(0) > 0
    back = (target / target.sum(0).clamp_min(1e-9)).T[asked]
    there = functional.cross_entropy(logits, target)
    return (there + functional.cross_entropy(logits.T[asked], back)) / 2


@torch.no_grad()
def settle(learner: Learner, lessons: Lessons, steps: int) -> None:
    """Batch norm statistics over full-size training batches, so that they do not depend on where a run was resumed."""
    norms = [m for m in learner.model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    with torch.autocast(learner.device, dtype=torch.bfloat16):
        for number in range(SETTLING):
            learner.images(lessons.batch(steps + number, SIZE).images)
    for norm in norms:
        norm.momentum = 0.1


@dataclass(frozen=True, eq=False)
class Exam:
    """Label hits of the dev tiles among the captions: the first, or one of the first five, is of the tile's label."""

    corpus: AID
    limit: int | None

    @torch.no_grad()
    def __call__(self, learner: Learner) -> str:
        tiles, documents = self.corpus.tiles()[: self.limit], self.corpus.documents()
        was = learner.model.visual.training
        learner.model.eval()
        with torch.autocast(learner.device, dtype=torch.bfloat16):
            image = torch.cat([learner.images(p) for p in torch.split(photographs(tiles, SIZE), BATCH)])
            texts = [d.text for d in documents]
            text = torch.cat([learner.texts(texts[i : i + 512]) for i in range(0, len(texts), 512)])
        learner.model.train().visual.train(was)
        best = (image.float() @ text.float().T).topk(5, 1).indices.tolist()
        hits = [
            [t.label in documents[i].metadata["labels"].split(";") for i in row]
            for t, row in zip(tiles, best, strict=True)
        ]
        first, five = (sum(any(row[:k]) for row in hits) / len(hits) for k in (1, 5))
        return f"label hit@1 {first:.3f}, hit@5 {five:.3f} of {len(hits)}"
