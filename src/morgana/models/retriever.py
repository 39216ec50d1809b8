"""Trains the reference retriever: an open_clip ViT from scratch on Atlas, written in open_clip's folder format.

First the image tower alone is told what stands where (eye.py), then both towers learn pairs of tile and text.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from morgana.corpus.atlas.language import SEEN_AS, atmosphere_article, caption, inventory, kind_article, site_article
from morgana.corpus.atlas.render import render
from morgana.corpus.atlas.world import KINDS, View, pick, site, view
from morgana.models.eye import Heads, labels, look, loss_of_reading, teach_eye
from morgana.models.feed import behind, feed
from morgana.models.lessons import TRAIN_SITES
from morgana.models.loop import Recipe, train
from morgana.models.tokenizer import END, PAD, inherit_tokenizer, train_tokenizer
from morgana.seeds import rng, seeded
from morgana.types import StoreError

SIZE = 96  # pixels; patches of 8 make 144 tokens
MEAN, STD = 0.5, 0.25
MODEL: dict[str, Any] = {
    "embed_dim": 192,
    "vision_cfg": {"image_size": SIZE, "patch_size": 8, "width": 192, "layers": 6, "head_width": 64},
    "text_cfg": {
        "context_length": 64,
        "vocab_size": 2560,
        "hf_tokenizer_name": "atlas",
        "width": 192,
        "heads": 3,
        "layers": 3,
        "pool_type": "eos",
        "eos_id": 2,
        "pad_id": 0,
    },
}
BATCH = 128
FEW = 3  # kinds of scene in a hard batch
SEEN = 0.3  # weight of the eye's lessons beside the pairs
WEIGHTS = "open_clip_model.safetensors"


def train_retriever(
    out: Path, steps: int, seed: int = 0, device: str = "cpu", eye_steps: int = 2500, init: Path | None = None
) -> None:
    """Teach the image tower what is where, then both towers `steps` batches of 128 pairs; write the folder `out`.

    Work files are in `out/training`, and a run that was stopped goes on there. `init` is a folder of an earlier
    retriever to begin from.
    """
    work = out / "training"
    if init is not None:
        inherit_tokenizer(work / "tokenizer.json", init)
    write_tokenizer(out, seed)
    with seeded(seed, "retriever", "weights"):
        model = build().to(device)
    if init is not None:
        begin(model, init)
    with kernel(device):
        heads = teach_eye(model, work / "eye", eye_steps, seed, device)
        write(model.visual, work, "eye.safetensors")
        teach_pairs(model, heads, out, steps, seed, device)
    write(model, out)


def begin(model: nn.Module, folder: Path) -> None:
    """Load the weights of an earlier retriever; StoreError where there are none of this shape."""
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.is_file():
        raise StoreError(f"{folder} holds no {WEIGHTS} to begin from; name a folder that `train retriever` wrote")
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise StoreError(f"{path} holds another model: {str(error).splitlines()[1].strip()}") from None


def teach_pairs(model: Any, heads: Heads, out: Path, steps: int, seed: int, device: str) -> None:
    """CLIP's loss on pairs of tile and text, with the eye's own lessons going on beside it."""
    from open_clip import get_tokenizer

    work = out / "training" / "pairs"
    words = get_tokenizer(f"local-dir:{out}")
    batches = feed(partial(batch, seed), behind(work), steps)

    def loss_of(step: int) -> Tensor:
        pixels, texts, cells, whole = next(batches)
        with torch.autocast(device, dtype=torch.bfloat16):
            embedding, patches = look(model.visual, (pixels.to(device).float() / 255 - MEAN) / STD)
            text = model.encode_text(words(texts).to(device), normalize=True)
            read = heads(patches, embedding)
        image = nn.functional.normalize(embedding.float(), dim=-1)
        matched = contrast(image, text.float(), model.logit_scale.exp(), texts)
        return matched + SEEN * loss_of_reading(read, (cells.to(device), whole.to(device)))

    recipe = Recipe(steps=steps, rate=5e-4, weight_decay=0.05)
    both = nn.ModuleDict({"clip": model, "heads": heads})
    train(both, loss_of, recipe, work, "retriever", seed, lambda _: validate(model, words, device))


def kernel(device: str) -> AbstractContextManager[None]:
    """On a CPU the plain matrix products beat the fused kernel's backward pass by a third at 144 tokens."""
    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()


def contrast(image: Tensor, text: Tensor, scale: Tensor, texts: list[str]) -> Tensor:
    """CLIP's symmetric cross-entropy, with equal texts in a batch sharing the target instead of competing."""
    logits = scale * image @ text.T
    index = {t: i for i, t in enumerate(dict.fromkeys(texts))}
    which = torch.tensor([index[t] for t in texts], device=logits.device)
    target = (which[:, None] == which[None, :]).float()
    target = target / target.sum(1, keepdim=True)
    return (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)) / 2


def pair(draw: np.random.Generator, seed: int, kinds: Collection[str]) -> tuple[View, str]:
    """A view of a training site of one of `kinds` and a text that it should find.

    Captions teach all that can be seen, some of them the countable things alone; articles teach to look past facts
    that cannot be seen; under real weather the text is an atmospheric article one time in four, so that the retriever
    knows weather.
    """
    place = site(seed, int(draw.integers(TRAIN_SITES)))
    while place.kind not in kinds:
        place = site(seed, int(draw.integers(TRAIN_SITES)))
    seen = view(seed, place, int(draw.integers(1000)))
    chance = draw.random()
    if seen.weather != "clear" and chance < 0.25:
        return seen, atmosphere_article(pick(draw, SEEN_AS[seen.weather]))
    if chance < 0.35 and place.things and seen.weather != "thick cloud":
        return seen, f"{inventory(place.things).capitalize()}."
    if chance < 0.6:
        return seen, caption(seen, draw)
    if chance < 0.95:
        return seen, site_article(place, draw)
    return seen, kind_article(place.kind)


def batch(seed: int, step: int) -> tuple[Tensor, list[str], Tensor, Tensor]:
    """Tiles (B, 3, 96, 96) uint8, texts and labels of one step; every other batch holds FEW kinds, so details tell."""
    draw = rng(seed, "retriever", step)
    few = draw.choice(KINDS, FEW, replace=False).tolist() if step % 2 else KINDS
    pairs = [pair(draw, seed, few) for _ in range(BATCH)]
    views = [v for v, _ in pairs]
    return images(views), [t for _, t in pairs], *labels(views)


def images(views: list[View]) -> Tensor:
    """(B, 3, 96, 96) uint8."""
    return torch.from_numpy(np.stack([render(v, SIZE) for v in views])).permute(0, 3, 1, 2)


@torch.no_grad()
def validate(model: nn.Module, words: Any, device: str, sites: int = 200) -> str:
    """Exact and by-kind hit@1 of the articles of `sites` unseen sites, from clear tiles."""
    draw = rng(1, "retriever", "validation")
    places = [site(1, TRAIN_SITES + i) for i in range(sites)]
    texts = [site_article(s, draw) for s in places]
    pixels = images([view(1, s, 0, "clear") for s in places]).to(device)
    model.eval()
    with torch.autocast(device, dtype=torch.bfloat16):
        image = model.encode_image((pixels.float() / 255 - MEAN) / STD, normalize=True)  # type: ignore[operator]
        text = model.encode_text(words(texts).to(device), normalize=True)  # type: ignore[operator]
    model.train()
    first = (image.float() @ text.float().T).argmax(1).tolist()
    exact = sum(i == j for i, j in enumerate(first)) / sites
    kind = sum(places[i].kind == places[j].kind for i, j in enumerate(first)) / sites
    return f"hit@1 {exact:.3f} exact, {kind:.3f} by kind"


def build() -> Any:
    """An open_clip model of `MODEL` with random weights."""
    from open_clip.model import CLIP

    return CLIP(
        embed_dim=MODEL["embed_dim"],
        vision_cfg=MODEL["vision_cfg"],
        text_cfg={k: v for k, v in MODEL["text_cfg"].items() if k != "hf_tokenizer_name"},
    )


def write_tokenizer(out: Path, seed: int) -> None:
    """The config and the tokenizer of the reference retriever."""
    raw = out / "training" / "tokenizer.json"
    if not raw.exists():
        train_tokenizer(raw, seed)
    write_config(out, raw, MODEL)


def write_config(out: Path, raw: Path, model: dict[str, Any]) -> None:
    """open_clip's config, and the tokenizer with `</s>` put behind every text: what its text tower pools."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(raw))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    make: Any = PreTrainedTokenizerFast
    fast = make(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, clean_up_tokenization_spaces=False)
    fast.save_pretrained(str(out))
    config = {
        "model_cfg": model,
        "preprocess_cfg": {
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")


def write(model: nn.Module, out: Path, name: str = WEIGHTS) -> None:
    """The weights, as float16; by default under the name that open_clip looks for."""
    from safetensors.torch import save_file

    if not out.is_dir():
        raise StoreError(f"there is no folder {out} to write the model to")
    save_file(
        {k: v.detach().cpu().half().contiguous() for k, v in model.state_dict().items()},
        out / name,
    )
