"""A conversation in LangChain's messages as one question with an image."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core import messages

from morgana.types import SpecError

ROLES = {"human": "user", "ai": "assistant"}


class Asked(NamedTuple):
    text: str
    image: bytes | None  # the content of an image file


def asked(conversation: Sequence[messages.BaseMessage]) -> Asked:
    """The last message's text under the lines of those before it, and the one image that is among them."""
    if not conversation:
        raise SpecError("there are no messages; give at least one")
    texts, images = [], []
    for message in conversation:
        text, seen = content(message)
        texts.append(text)
        images += seen
    if len(images) > 1:
        raise SpecError(f"the conversation holds {len(images)} images; a question has one")
    before = zip(conversation[:-1], texts[:-1], strict=True)
    lines = [f"{ROLES.get(message.type, message.type)}: {text}" for message, text in before if text]
    return Asked("\n".join([*lines, texts[-1]]), images[0] if images else None)


def content(message: messages.BaseMessage) -> tuple[str, list[bytes]]:
    """The text and the images of a message; SpecError for anything else in it."""
    texts, images = [], []
    for block in message.content_blocks:
        if block["type"] == "text":
            texts.append(str(block["text"]))
        elif block["type"] == "image":
            images.append(decoded(block))
        else:
            raise SpecError(f"a message holds a block of type {block['type']!r}; only text and images are read")
    return "\n".join(texts), images


def decoded(block: Mapping[str, Any]) -> bytes:
    """The bytes of an image block: in base64, or in a data URL."""
    data, url = block.get("base64"), str(block.get("url") or "")
    if data is None and url.startswith("data:") and ";base64," in url:
        data = url.partition(";base64,")[2]
    if not data:
        raise SpecError(f"the image is at {url[:80]!r}, which is not followed; give it as base64 or a data URL")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SpecError(f"the image is not base64: {error}") from None
