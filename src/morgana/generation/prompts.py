"""The prompt of a query, through the model's own processor and chat template, and where its parts lie in tokens.

Character offsets of fast tokenizers give the spans. They are counted from the end of the prompt, because the image,
which stands before the text, is one placeholder in the template and hundreds of tokens in the model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

from morgana.generation._quirks import quirk
from morgana.types import Hits, Pixels, Query, SpecError

Span: TypeAlias = tuple[int, int]  # half-open
HERE = "\ue0f0morgana\ue0f1"  # stands for the text while the chat template is asked what it writes around it
UNWRITTEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # control characters, lone surrogates


@dataclass(frozen=True)
class Spans:
    """Where the parts of one prompt lie, in tokens of its row in the batch, left padding included.

    `image` holds every run of visual tokens, empty without an image. `start` is the first token that is no padding,
    `stop` one past the prompt's last; an answer may follow, up to `length`, the same for every row of a batch.
    """

    start: int
    stop: int
    length: int
    image: tuple[Span, ...]
    documents: tuple[Span, ...]
    question: Span

    def __post_init__(self) -> None:
        parts = (*self.image, *self.documents, self.question)
        ordered = all(self.start <= first <= last <= self.stop for first, last in parts)
        apart = all(last <= first or end <= start for first, end in self.image for start, last in self.documents)
        if not (0 <= self.start <= self.stop <= self.length and ordered and apart):
            raise SpecError(
                f"{self} are the spans of no prompt: wanted 0 <= start <= stop <= length, and image, documents and "
                "question as (first, one past the last) between start and stop, no document in the image"
            )


@dataclass(frozen=True)
class Prompt:
    """What the model is called with, the spans of every row, and the tokens of the answer if one was written."""

    inputs: dict[str, Tensor]
    spans: tuple[Spans, ...]
    answer: Tensor | None = None  # (T,) ids, the end token last


@dataclass(frozen=True)
class Block:
    """The text of a user's message, with the characters of each document and of the question in it."""

    text: str
    documents: tuple[Span, ...]
    question: Span


def compose(processor: Any, query: Query, hits: Hits) -> Block:
    """`Article i: …` for every hit, then `Question: …`: what the bundled model was trained on."""
    text, documents = "", []
    for i, hit in enumerate(hits, 1):
        body = neutral(processor, hit.document.text)
        text += f"Article {i}: "
        documents.append((len(text), len(text) + len(body)))
        text += f"{body}\n"
    text += "Question: "
    asked = neutral(processor, query.text)
    return Block(text + asked, tuple(documents), (len(text), len(text) + len(asked)))


def neutral(processor: Any, text: str) -> str:
    """The text with nothing in it that the tokenizer would read as a token of its own making.

    A space goes into every control token (`< image>`), and characters that cannot be written become U+FFFD; other
    text is left as it is.
    """
    text = UNWRITTEN.sub("\ufffd", text)
    tokens = control_tokens(processor)
    if not any(token in text for token in tokens):
        return text
    pattern = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))
    while pattern.search(text):
        text = pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}" if len(found[0]) > 1 else "\ufffd", text)
    return text


@lru_cache(maxsize=8)
def control_tokens(processor: Any) -> tuple[str, ...]:
    """Special tokens, placeholders of other media, and the added tokens that the chat template writes."""
    template = template_of(processor)
    written = (
        token.content
        for token in processor.tokenizer.added_tokens_decoder.values()
        if token.special or (token.content in template and not token.content.isspace())
    )
    media = (getattr(processor, f"{kind}_token", None) for kind in ("image", "video", "audio"))
    return tuple(dict.fromkeys([*written, *filter(None, media)]))


def template_of(processor: Any) -> str:
    template = getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str) and (odd := quirk(processor)):
        return odd.template
    if not isinstance(template, str):
        raise SpecError("this model's processor has no chat template; use a chat model, or add chat_template.jinja")
    return template


@lru_cache(maxsize=8)
def frame(processor: Any, *, image: bool) -> tuple[str, str, str]:
    """What the chat template writes before the text, after it, and between the prompt and the answer."""
    content = [{"type": "image"}] if image else []
    user = {"role": "user", "content": [*content, {"type": "text", "text": HERE}]}
    template = template_of(processor)
    asked = processor.apply_chat_template([user], add_generation_prompt=True, chat_template=template)
    before, found, after = asked.partition(HERE)
    if not found or HERE in after:
        raise SpecError("the chat template does not write the user's text once; this model cannot be prompted")
    said = {"role": "assistant", "content": [{"type": "text", "text": HERE}]}
    gap, found, _ = processor.apply_chat_template([user, said], chat_template=template)[len(asked) :].partition(HERE)
    return before, after, gap if found and not gap.strip() else ""


def write(
    processor: Any,
    pixels: Sequence[Pixels | None],
    queries: Sequence[Query],
    hits: Sequence[Hits],
    *,
    longest: int | None = None,
    answer: str | None = None,
    end: int | None = None,
) -> Prompt:
    """The batch of prompts, left padded, each image a (1, 3, H, W) tensor in [0, 1] that keeps its gradient.

    `answer` (for one query only) is written after the prompt as the model would write it, and `end` after that.
    SpecError when a prompt is longer than `longest` tokens.
    """
    blocks = [compose(processor, query, found) for query, found in zip(queries, hits, strict=True)]
    frames = [frame(processor, image=image is not None) for image in pixels]
    said = [after + spoken(processor, answer, gap) for _, after, gap in frames]
    texts = [before + block.text + rest for (before, *_), block, rest in zip(frames, blocks, said, strict=True)]
    images = [[] if image is None else [image[0]] for image in pixels]
    inputs = tokenise(processor, texts, images)
    offsets = inputs.pop("offset_mapping")
    padding = (inputs["attention_mask"] == 0).sum(1).tolist()
    count = inputs["input_ids"].shape[1]
    if longest is not None and count > longest:
        query = queries[padding.index(0)]
        raise SpecError(
            f"the prompt of query {query.id!r} has {count:,} tokens, the model reads {longest:,}; "
            "retrieve fewer or shorter documents"
        )
    ends = [len(rest) for rest in said]
    tail = [len(rest) - len(after) for rest, (_, after, _) in zip(said, frames, strict=True)]
    spans = tuple(
        locate(processor, inputs["input_ids"][i], offsets[i], padding[i], blocks[i], ends[i], tail[i])
        for i in range(len(blocks))
    )
    if odd := quirk(processor):
        odd.finish(inputs, spans)
    prompt = Prompt(inputs, spans)
    return prompt if answer is None else closed(prompt, end)


def spoken(processor: Any, answer: str | None, gap: str) -> str:
    return gap + neutral(processor, answer) if answer else ""


def tokenise(processor: Any, texts: list[str], images: list[list[Tensor]]) -> dict[str, Tensor]:
    """The processor's own outputs, with character offsets; pixel values keep their gradient.

    `images` are those of each text; where each has one, or none has, that is all that a processor may take.
    """
    if not getattr(processor.tokenizer, "is_fast", False):
        raise SpecError(f"{type(processor.tokenizer).__name__} gives no character offsets; use a fast tokenizer")
    flat = [image for few in images for image in few]
    if odd := quirk(processor):
        inputs = odd.tokenise(processor, texts, [image.detach() for image in flat])
    else:
        inputs = processed(processor, texts, [[image.detach() for image in few] for few in images])
    if any(image.requires_grad for image in flat):
        inputs.update(see(processor, flat, inputs))
    return inputs


def processed(processor: Any, texts: list[str], images: list[list[Tensor]]) -> dict[str, Tensor]:
    begin = processor.tokenizer.bos_token
    made = processor(
        images=images if any(images) else None,
        text=texts,
        padding=True,
        padding_side="left",
        add_special_tokens=not (begin and texts[0].startswith(begin)),
        do_rescale=False,
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    return dict(made)


def see(processor: Any, images: list[Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image processor's outputs that the model takes, differentiable in the images."""
    seen = processor.image_processor(images=[[image] for image in images], do_rescale=False, return_tensors="pt")
    return {key: value for key, value in seen.items() if key in inputs}


def locate(processor: Any, ids: Tensor, offsets: Tensor, padding: int, block: Block, after: int, tail: int) -> Spans:
    """The spans of one row; `after` characters follow the block, the last `tail` of them the answer."""
    total = int(offsets.max())
    origin = total - after - len(block.text)

    def tokens(span: Span) -> Span:
        first, last = span[0] + origin, span[1] + origin
        touched = ((offsets[:, 0] < last) & (offsets[:, 1] > first)).nonzero().flatten()
        if not len(touched):
            before = int((offsets[:, 1] <= first).nonzero().max()) + 1
            return before, before
        return int(touched[0]), int(touched[-1]) + 1

    stop = tokens((total - tail - origin, total - origin))[0] if tail else len(ids)
    documents = tuple(map(tokens, block.documents))
    image = runs(ids == image_token(processor))
    spans = Spans(padding, stop, len(ids), image, documents, tokens(block.question))
    check(processor, ids, spans)
    return spans


def image_token(processor: Any) -> int:
    known = getattr(processor, "image_token_id", None)
    return int(processor.tokenizer.convert_tokens_to_ids(processor.image_token) if known is None else known)


def runs(mask: Tensor) -> tuple[Span, ...]:
    """The maximal runs of true values.

    >>> runs(torch.tensor([False, True, True, False, True]))
    ((1, 3), (4, 5))
    """
    edges = torch.nn.functional.pad(mask.int(), (1, 1)).diff()
    return tuple(
        zip((edges == 1).nonzero().flatten().tolist(), (edges == -1).nonzero().flatten().tolist(), strict=True)
    )


def visual(spans: Sequence[Spans], device: torch.device | None = None) -> Tensor:
    """(B, N) which tokens of a batch are visual."""
    made = torch.zeros(len(spans), spans[0].length, dtype=torch.bool)
    for row, span in zip(made, spans, strict=True):
        for first, last in span.image:
            row[first:last] = True
    return made.to(device)


def check(processor: Any, ids: Tensor, spans: Spans) -> None:
    """SpecError if a control token lies inside a document or the question: text must not become structure."""
    control = set(processor.tokenizer.all_special_ids) | {image_token(processor)}
    for first, last in (*spans.documents, spans.question):
        if found := control.intersection(ids[first:last].tolist()):
            names = processor.tokenizer.convert_ids_to_tokens(sorted(found))
            raise SpecError(f"a document or question was read as the control tokens {names}; leave it out")


def closed(prompt: Prompt, end: int | None) -> Prompt:
    """The prompt of one row with the end token, if any, after the answer, and the answer's ids."""
    inputs, (spans,) = dict(prompt.inputs), prompt.spans
    if end is not None:
        whole = inputs["input_ids"].shape
        for key, value in inputs.items():
            if value.shape == whole:
                fill = end if key == "input_ids" else int(value[0, -1])
                inputs[key] = torch.nn.functional.pad(value, (0, 1), value=fill)
    ids = inputs["input_ids"][0]
    return Prompt(inputs, (replace(spans, length=len(ids)),), ids[spans.stop :])
