"""What a few processors do that cannot be read off them. Most families need no entry here: adding one is a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Stopped(Protocol):
    @property
    def stop(self) -> int: ...


class Quirk(Protocol):
    """How a processor that breaks the common contract is prompted after all."""

    template: str  # a chat template for a processor that has none

    def tokenise(self, processor: Any, texts: Sequence[str], images: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the processor should have made of filled-in templates, left padded, with `offset_mapping`."""
        ...

    def finish(self, inputs: dict[str, Tensor], spans: Sequence[Stopped]) -> None:
        """Whatever depends on where the prompt ends and the answer begins."""
        ...


class PaliGemma:
    """No chat template, a newline that the processor puts behind everything, a prompt that sees itself in full."""

    template = (
        "{% for message in messages %}{% for item in message['content'] %}"
        "{% if item['type'] == 'image' %}<image>{% else %}{{ item['text'] }}{% endif %}{% endfor %}"
        "{% if message['role'] == 'user' %}{{ '\\n' }}{% endif %}{% endfor %}"
    )

    def tokenise(self, processor: Any, texts: Sequence[str], images: Sequence[Tensor]) -> dict[str, Tensor]:
        one, begin = processor.image_token, processor.tokenizer.bos_token
        whole = one * processor.image_seq_length
        filled = [(whole + begin + t.removeprefix(one)) if t.startswith(one) else begin + t for t in texts]
        made = processor.tokenizer(
            filled,
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_token_type_ids=False,
            return_tensors="pt",
        )
        seen = processor.image_processor(images=list(images), do_rescale=False, return_tensors="pt") if images else {}
        return {**made, **seen, "token_type_ids": torch.zeros_like(made["input_ids"])}

    def finish(self, inputs: dict[str, Tensor], spans: Sequence[Stopped]) -> None:
        for row, span in zip(inputs["token_type_ids"], spans, strict=True):
            row[span.stop :] = 1  # the answer is read causally


QUIRKS: dict[str, Quirk] = {"PaliGemmaProcessor": PaliGemma()}


def quirk(processor: Any) -> Quirk | None:
    return QUIRKS.get(type(processor).__name__)
