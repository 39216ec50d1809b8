"""Any generator as a LangChain chat model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from langchain_core import callbacks, documents, messages, outputs
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from pydantic import Field, field_validator, model_validator

from morgana.generation.generators.hf import HF
from morgana.interop.langchain import _messages
from morgana.interop.langchain._built import built
from morgana.interop.langchain._documents import from_langchain
from morgana.types import Generator, Hit, Query, SpecError

ONE_AT_A_TIME = Lock()  # LangChain batches by threads; interventions and pruners change the model while it runs


class ChatModel(BaseChatModel):
    """`HF(model)`, or any `generator` (or its spec), such as a SmoothGuard around one; greedy, so no temperature.

    The last human message is the question and its image block (base64 or a data URL; addresses are not followed) the
    query's image; what was said before stands above the question, `role: text` a line. `invoke(messages,
    documents=[…])` gives the documents that it shall read. An answer is cut before the first of `stop`.
    """

    model: str = "atlas"
    generator: Any = None
    max_tokens: int | None = Field(default=None, ge=1)  # None: 32, or what the generator says
    stop: list[str] | None = None
    temperature: float | None = None

    @field_validator("generator")
    @classmethod
    def _built(cls, given: Any) -> Any:
        return None if given is None else built(given, "generator")

    @model_validator(mode="after")
    def _greedy(self) -> ChatModel:
        if self.temperature:
            raise SpecError(f"temperature={self.temperature:g}; the model answers greedily, so leave it out or give 0")
        if self.max_tokens is not None and self.generator is not None and not isinstance(self.generator, HF):
            raise SpecError(f"{type(self.generator).__name__} takes no max_tokens here; set it on the generator inside")
        return self

    @property
    def _llm_type(self) -> str:
        return "morgana"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"generator": repr(self.answering(self.model)), "stop": self.stop}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        found = super()._get_ls_params(stop=stop, **kwargs)
        found["ls_provider"] = "morgana"
        return found

    def answering(self, model: str) -> Generator:
        """The generator that answers."""
        named: Any = HF(model) if self.generator is None or model != self.model else self.generator
        made: Generator = named if self.max_tokens is None else replace(named, max_new_tokens=self.max_tokens)
        return made

    def _generate(
        self,
        messages: list[messages.BaseMessage],
        stop: list[str] | None = None,
        run_manager: callbacks.CallbackManagerForLLMRun | None = None,
        *,
        model: str | None = None,
        documents: Sequence[documents.Document] = (),
        **kwargs: Any,
    ) -> outputs.ChatResult:
        if kwargs:
            raise SpecError(f"a call takes stop, model and documents, not {', '.join(kwargs)}")
        read = tuple(Hit(from_langchain(d, d.id or f"#{i}"), 1 / i) for i, d in enumerate(documents, 1))
        asked = _messages.asked(messages)
        with TemporaryDirectory(prefix="morgana-") as folder:
            image = None
            if asked.image is not None:
                image = Path(folder) / "image"
                image.write_bytes(asked.image)
            with ONE_AT_A_TIME:
                (answer,) = self.answering(model or self.model)([Query("question", asked.text, image)], [read])
        return said(cut(answer.text, [*(stop or ()), *(self.stop or ())]), model or self.model)

    def _stream(
        self,
        messages: list[messages.BaseMessage],
        stop: list[str] | None = None,
        run_manager: callbacks.CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[outputs.ChatGenerationChunk]:
        """The whole answer as one chunk: generators of Morgana's speak when they are done."""
        (made,) = self._generate(messages, stop, run_manager, **kwargs).generations
        yield outputs.ChatGenerationChunk(message=chunk(made.message))


def chunk(message: messages.BaseMessage) -> messages.AIMessageChunk:
    return messages.AIMessageChunk(
        content=message.content, response_metadata=message.response_metadata, chunk_position="last"
    )


def said(text: str, model: str) -> outputs.ChatResult:
    message = messages.AIMessage(content=text, response_metadata={"model_name": model, "model_provider": "morgana"})
    return outputs.ChatResult(generations=[outputs.ChatGeneration(message=message)])


def cut(text: str, stops: Sequence[str]) -> str:
    """What stands before the first of `stops`.

    >>> cut("one. two. three", [" three", " two"])
    'one.'
    """
    return text[: min([len(text), *(text.find(stop) for stop in stops if stop and stop in text)])]
