"""The reference models' tokenizer: byte-level BPE trained on Atlas's own sentences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from morgana.corpus.atlas.language import ATMOSPHERE, DISTRACTORS, atmosphere_article, caption, kind_article
from morgana.corpus.atlas.world import KINDS
from morgana.models.lessons import lesson
from morgana.seeds import rng
from morgana.types import StoreError

PAD, BEGIN, END, IMAGE = SPECIAL = ("<pad>", "<s>", "</s>", "<image>")
VOCABULARY = 2560


def sentences(seed: int, count: int) -> Iterator[str]:
    """Text of training lessons, captions and every fixed article."""
    yield from (kind_article(k) for k in KINDS)
    yield from (atmosphere_article(t) for t in ATMOSPHERE)
    yield from DISTRACTORS.values()
    draw = rng(seed, "tokenizer")
    for _ in range(count):
        taught = lesson(draw, seed)
        yield caption(taught.view, draw)
        for i, text in enumerate(taught.articles, 1):
            yield f"Article {i}: {text}\n"
        for question in taught.questions:
            yield f"USER: Question: {question.text} ASSISTANT: {question.answer}"


def train_tokenizer(path: Path, seed: int = 0, count: int = 6000) -> None:
    """Write a `tokenizers` JSON file at `path`."""
    learn(path, sentences(seed, count))


def inherit_tokenizer(path: Path, folder: Path) -> None:
    """Write at `path` the tokenizer of an earlier model, without what it puts around a text."""
    earlier = folder / "tokenizer.json"
    if not earlier.is_file():
        raise StoreError(f"{folder} holds no tokenizer.json to begin from; name a folder that `morgana train` wrote")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(json.loads(earlier.read_text("utf-8")) | {"post_processor": None}), "utf-8")


def learn(path: Path, texts: Iterable[str], vocabulary: int = VOCABULARY) -> None:
    """A tokenizer of these texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
