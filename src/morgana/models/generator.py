"""Trains the reference MLLM: language first, then image and articles together; written in transformers' format.

Its eye is the reference retriever's vision tower, which is frozen: the projector and the decoder learn to read it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from morgana.corpus.atlas.world import View
from morgana.generation.reference import reference_config, reference_processor, vision_from_openclip
from morgana.models.conversation import Batch, Writer, weighted_loss
from morgana.models.copying import write_induction
from morgana.models.feed import behind, feed
from morgana.models.language import exercise, teach_language, to
from morgana.models.lessons import lesson
from morgana.models.loop import Recipe, train
from morgana.models.retriever import MEAN, STD, images
from morgana.models.tokenizer import inherit_tokenizer, train_tokenizer
from morgana.seeds import derive, rng, seeded
from morgana.types import StoreError

SEEN, READ = 12, 3  # conversations with an image a step, text-only rows beside them so that reading is not lost
LOOK_FIRST = 0.6  # default share of the steps that mostly do without articles
EARLY, LATE = (0.75, 0.1, 0.05, 0.1), (0.3, 0.15, 0.15, 0.4)  # chances of 0 … 3 articles


def train_generator(
    out: Path,
    retriever: Path,
    language_steps: int,
    steps: int,
    seed: int = 0,
    device: str = "cpu",
    *,
    compiled: bool = False,
    init: Path | None = None,
    look_first: float = LOOK_FIRST,
) -> None:
    """Train both stages and write the model folder `out`; work files are in `out/training`.

    `init` is the folder of an earlier generator to begin from: it can read, so the language stage is left out.
    In the first `look_first` of the steps of sight most conversations have no article, after that most have some.
    """
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    weights = retriever / "open_clip_model.safetensors"
    if not weights.exists():
        raise StoreError(
            f"{retriever} holds no open_clip_model.safetensors; "
            f"train it first: morgana train retriever --out {retriever}"
        )
    work = out / "training"
    words = work / "tokenizer.json"
    if init is not None:
        inherit_tokenizer(words, init)
    elif not words.exists():
        train_tokenizer(words, seed)
    writer = Writer(Tokenizer.from_file(str(words)))
    with seeded(seed, "generator", "weights"):
        model = build(writer, seed).to(device)
    if init is None:
        learn_language(model, writer, work / "language", language_steps, seed, compiled=compiled)
    else:
        begin(model, init)
    model.model.vision_tower.load_state_dict(vision_from_openclip(load_file(weights)))
    teach_sight(model, writer, work / "sight", steps, seed, look_first)
    reference_processor(words, out)
    model.half().save_pretrained(str(out))


def begin(model: Any, folder: Path) -> None:
    """Load the weights of an earlier generator; StoreError where there are none of this shape."""
    from transformers import LlavaForConditionalGeneration

    if not (folder / "model.safetensors").is_file():
        raise StoreError(f"{folder} holds no model.safetensors to begin from; name what `train generator` wrote")
    earlier = LlavaForConditionalGeneration.from_pretrained(str(folder), dtype=torch.float32).state_dict()
    if {k: v.shape for k, v in earlier.items()} != {k: v.shape for k, v in model.state_dict().items()}:
        raise StoreError(f"{folder} holds another model than this recipe's; begin from nothing, or name another")
    model.load_state_dict(earlier)


def build(writer: Writer, seed: int) -> Any:
    """A LlavaForConditionalGeneration whose random weights can copy; plain attention is the fastest on a CPU here."""
    from transformers import LlavaForConditionalGeneration

    config = reference_config(writer.size, pad=writer.pad, image=writer.image)
    config._attn_implementation = "eager"
    model = LlavaForConditionalGeneration(config)
    write_induction(model.model.language_model, torch.Generator().manual_seed(derive(seed, "induction")))
    return model


def learn_language(model: Any, writer: Writer, work: Path, steps: int, seed: int, *, compiled: bool) -> None:
    """Train the decoder alone as a LlamaForCausalLM that shares its weights."""
    from transformers import LlamaForCausalLM

    decoder = LlamaForCausalLM(model.config.text_config)
    decoder.model = model.model.language_model
    decoder.lm_head = model.lm_head
    teach_language(decoder, writer, work, steps, seed, compiled=compiled)


def teach_sight(model: Any, writer: Writer, work: Path, steps: int, seed: int, look_first: float) -> None:
    """Train on conversations about tiles, with some text-only rows in between; articles come in as steps go by."""
    batches = feed(partial(mixed, writer, seed, look_first * steps), behind(work), steps)
    device = next(model.parameters()).device
    model.model.vision_tower.requires_grad_(False)

    def loss_of(step: int) -> Tensor:
        tiles, seen, read = next(batches)
        seen, read = to(seen, device), to(read, device)
        pixels = (tiles.to(device).float() / 255 - MEAN) / STD
        with torch.autocast(device.type, dtype=torch.bfloat16):
            look = model(input_ids=seen.ids, attention_mask=seen.mask, pixel_values=pixels, use_cache=False).logits
            text = model(input_ids=read.ids, attention_mask=read.mask, use_cache=False).logits
        return 0.8 * weighted_loss(look, seen) + 0.2 * weighted_loss(text, read)

    recipe = Recipe(steps=steps, rate=1e-3)
    train(model, loss_of, recipe, work, "sight", seed, lambda _: examine(model, writer), report_every=200)


def mixed(writer: Writer, seed: int, looking: float, step: int) -> tuple[Tensor, Batch, Batch]:
    """Tiles (B, 3, 96, 96) uint8 with their conversations, and text-only rows; half as many where articles are long."""
    draw = rng(seed, "sight", step)
    articles = int(draw.choice(4, p=EARLY if step < looking else LATE))
    taught = [lesson(draw, seed, articles, 6) for _ in range(SEEN if articles > 1 else 2 * SEEN)]
    read = [exercise(writer, draw, seed, 1.0) for _ in range(READ)]
    return (
        images([t.view for t in taught]),
        writer.batch([writer.conversation(t, None) for t in taught]),
        writer.batch(read),
    )


@torch.no_grad()
def examine(model: Any, writer: Writer, lessons: int = 96) -> str:
    """Share of held-out answers right in every token, teacher-forced, by what is asked; one question a conversation."""
    draw = rng(1, "sight", "examination")
    rows, kinds, views = [], [], []
    for _ in range(lessons):
        taught = lesson(draw, 1, 3, 3)
        for question in (taught.questions[0], taught.questions[-1]):
            rows.append(writer.conversation(replace(taught, questions=(question,)), None))
            views.append(taught.view)
            kinds.append("presence" if question.kind == "presence" else question.about)
            if question.short == "The articles do not say.":
                kinds[-1] = "unknown"
    right: list[bool] = []
    for i in range(0, len(rows), 16):
        right += exact(model, writer.batch(rows[i : i + 16]), views[i : i + 16])
    shares = {k: np.mean([r for r, kind in zip(right, kinds, strict=True) if kind == k]) for k in sorted(set(kinds))}
    return ", ".join(f"{k} {v:.2f}" for k, v in shares.items())


def exact(model: Any, batch: Batch, views: list[View]) -> list[bool]:
    device = next(model.parameters()).device
    batch = to(batch, device)
    pixels = (images(views).to(device).float() / 255 - MEAN) / STD
    with torch.autocast(device.type, dtype=torch.bfloat16):
        best = model(
            input_ids=batch.ids, attention_mask=batch.mask, pixel_values=pixels, use_cache=False
        ).logits.argmax(-1)
    hits = (best[:, :-1] == batch.ids[:, 1:]) | (batch.weights[:, 1:] < 1)
    return [bool(h) for h in hits.all(1)]
