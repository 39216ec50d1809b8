"""A whole pipeline as a LangChain runnable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain_core import runnables
from langchain_core.runnables.config import run_in_executor

from morgana.interop.langchain._documents import to_langchain
from morgana.pipeline import Pipeline
from morgana.types import Query, SpecError

KEYS = ("question", "image", "id")


class Runnable(runnables.Runnable[Any, dict[str, Any]]):
    """Question in, `{"question", "answer", "documents"}` out; a batch is one call of the pipeline.

    The question is a text, a `Query`, or `{"question": text, "image": path, "id": name}`, all of which may be absent.
    """

    def __init__(self, pipeline: Pipeline, k: int = 5) -> None:
        if k < 1:
            raise SpecError(f"k={k}; ask for at least 1 document")
        self.pipeline, self.k = pipeline, k
        self.name = "Morgana"

    def invoke(self, input: Any, config: runnables.RunnableConfig | None = None, **kwargs: Any) -> dict[str, Any]:
        return self._call_with_config(lambda one: self._answered([one])[0], input, config)

    def batch(
        self,
        inputs: list[Any],
        config: runnables.RunnableConfig | list[runnables.RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """All at once; one that cannot be answered fails the batch."""
        return self._batch_with_config(self._answered, inputs, config, return_exceptions=return_exceptions)

    async def abatch(
        self,
        inputs: list[Any],
        config: runnables.RunnableConfig | list[runnables.RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        return await run_in_executor(None, self.batch, inputs, config, return_exceptions=return_exceptions)

    def _answered(self, inputs: list[Any]) -> list[Any]:
        queries = [query(given, str(number)) for number, given in enumerate(inputs)]
        answers = self.pipeline(queries, self.k)
        return [
            {
                "question": query.text,
                "answer": answer.text,
                "documents": [to_langchain(hit.document, hit.score) for hit in answer.hits],
            }
            for query, answer in zip(queries, answers, strict=True)
        ]


def query(given: Any, name: str) -> Query:
    """The query that an input spells; SpecError for anything else."""
    match given:
        case Query():
            return given
        case str():
            return Query(name, given)
        case Mapping() if given and set(given) <= set(KEYS):
            image = given.get("image")
            return Query(
                str(given.get("id", name)), str(given.get("question", "")), None if image is None else Path(image)
            )
    raise SpecError(f"{str(given)[:100]!r} is no question; give a text, a Query, or a dict with {', '.join(KEYS)}")
