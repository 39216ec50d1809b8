"""Any transformers image-text model as a generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from morgana.corpus.images import load as load_image
from morgana.generation import prompts
from morgana.generation.attention import Intervention, Reference, calibrating, intervening
from morgana.generation.generators import _checkpoint
from morgana.generation.plan import Kept
from morgana.generation.prompts import Prompt
from morgana.generation.pruner import Pruner
from morgana.generation.shortening import pruning
from morgana.generation.visual import Probe
from morgana.spec import part
from morgana.types import Answer, Hits, Pixels, Query, SpecError

GREY_LEVELS = 16.0  # a pixel beyond this was not divided by 255 (noise may well leave [0, 1])


@part
class HF:
    """A transformers image-text model: a hub name, a local folder, or "atlas", the bundled one; greedy decoding.

    Of the documents it reads the text. Interventions act on the prompt's pass, in order, and equally in `generate`,
    `loss` and `logits`; those that calibrate cost one more pass over image and question alone. So do pruners: one, or a
    tuple of them in the order of the layers where they act.
    """

    model: str
    max_new_tokens: int = 32
    interventions: tuple[Intervention, ...] = ()
    pruner: Pruner | tuple[Pruner, ...] = ()
    revision: str | None = None
    local_files_only: bool = False
    batch_size: int = field(default=16, repr=False, compare=False)
    device: str | None = field(default=None, repr=False, compare=False)  # None: CUDA if there is any
    progress: bool = field(default=False, repr=False, compare=False)  # a bar on the terminal

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.batch_size < 1:
            raise SpecError(
                f"max_new_tokens={self.max_new_tokens} and batch_size={self.batch_size} must both be at least 1"
            )
        if strange := [part for part in self.interventions if not isinstance(part, Intervention)]:
            raise SpecError(f"{strange[0]!r} is no intervention; `morgana list intervention` shows those there are")
        if other := [part for part in self.pruners if not isinstance(part, Pruner)]:
            raise SpecError(f"{other[0]!r} is no pruner; `morgana list pruner` shows those there are")

    @property
    def pruners(self) -> tuple[Pruner, ...]:
        return self.pruner if isinstance(self.pruner, tuple) else (self.pruner,)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        return _checkpoint.load(self.model, self.revision, self.local_files_only, self.device)

    @property
    def fingerprint(self) -> str:
        """A hash of the weights and the tokenizer's work."""
        return _checkpoint.fingerprint(*self._loaded)

    @property
    def network(self) -> Any:
        """The transformers model."""
        return self._loaded[0]

    @property
    def processor(self) -> Any:
        return self._loaded[1]

    def __call__(self, queries: Sequence[Query], hits: Sequence[Hits]) -> list[Answer]:
        texts = self._batched(lambda i: self.look(queries[i]), queries, hits)
        return [Answer(text, tuple(read)) for text, read in zip(texts, hits, strict=True)]

    def generate(self, pixels: Sequence[Pixels | None], queries: Sequence[Query], hits: Sequence[Hits]) -> list[str]:
        if len(pixels) != len(queries):
            raise SpecError(f"{len(pixels)} images for {len(queries)} queries; give one, or None, a query")
        return self._batched(lambda i: pixels[i], queries, hits)

    def loss(self, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        """Cross-entropy of `text` and the end of the answer, (B,) mean over their tokens."""
        made, target = self._forced(pixels, query, hits, text)
        wanted, made = target.expand(len(made), -1), made.to(torch.promote_types(made.dtype, torch.float32))
        return torch.nn.functional.cross_entropy(made.transpose(1, 2), wanted, reduction="none").mean(1)

    def logits(self, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        """Teacher-forced logits (B, T, V) of each token of `text` and of the end of the answer."""
        return self._forced(pixels, query, hits, text)[0]

    def prefill(
        self,
        pixels: Sequence[Pixels | None],
        queries: Sequence[Query],
        hits: Sequence[Hits],
        probe: Intervention | None = None,
    ) -> Tensor:
        """Logits (B, V) of the first token of each answer, one pass; `probe` comes after the interventions."""
        prompt = self.write(pixels, queries, hits)
        extra = () if probe is None else (probe,)
        reference = self._calibrate(pixels, queries, prompt)
        return self._pass(prompt, (*self.interventions, *extra), reference, 1)[:, -1]

    def look(self, query: Query) -> Pixels | None:
        """The pixels of the query's image file, (1, 3, H, W) in [0, 1]."""
        return None if query.image is None else load_image(query.image)

    def write(self, pixels: Sequence[Pixels | None], queries: Sequence[Query], hits: Sequence[Hits]) -> Prompt:
        """The batch of prompts with their spans, on the model's device."""
        if not len(pixels) == len(queries) == len(hits):
            raise SpecError(f"{len(pixels)} images, {len(queries)} queries and {len(hits)} lists of hits; give as many")
        images = [None if image is None else self._checked(image, 1) for image in pixels]
        return self._placed(prompts.write(self.processor, images, queries, hits, longest=self._longest))

    def _batched(
        self, image: Callable[[int], Pixels | None], queries: Sequence[Query], hits: Sequence[Hits]
    ) -> list[str]:
        if len(queries) != len(hits):
            raise SpecError(f"{len(queries)} queries for {len(hits)} lists of hits; give one list a query")
        texts: list[str] = []
        with self._bar(len(queries)) as advance:
            for first in range(0, len(queries), self.batch_size):
                rows = range(first, min(first + self.batch_size, len(queries)))
                texts += self._answers([image(i) for i in rows], [queries[i] for i in rows], [hits[i] for i in rows])
                advance(len(rows))
        return texts

    @torch.no_grad()
    def _answers(self, pixels: Sequence[Pixels | None], queries: Sequence[Query], hits: Sequence[Hits]) -> list[str]:
        prompt = self.write(pixels, queries, hits)
        reference = self._calibrate(pixels, queries, prompt)
        with self._at_work(self.interventions, prompt, reference):
            ids = self.network.generate(**prompt.inputs, generation_config=self._greedy)
        said = ids[:, prompt.inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.tokenizer.batch_decode(said, skip_special_tokens=True)]

    def _forced(self, pixels: Pixels, query: Query, hits: Hits, text: str) -> tuple[Tensor, Tensor]:
        self._checked(pixels, len(pixels))
        prompt = self._shared(pixels, query, hits, text)
        assert prompt.answer is not None
        reference = self._referred(pixels, query, hits)
        count = len(prompt.answer)
        return self._pass(prompt, self.interventions, reference, count + 1)[:, :-1], prompt.answer

    def _shared(self, pixels: Pixels, query: Query, hits: Hits, answer: str | None = None) -> Prompt:
        """One prompt for every image (B, 3, H, W), differentiable in them."""
        one = prompts.write(
            self.processor,
            [pixels[:1].detach()],
            [query],
            [hits],
            longest=self._longest,
            answer=answer,
            end=self._end if answer is not None else None,
        )
        seen = prompts.see(self.processor, list(pixels), one.inputs)
        rows = {k: v.expand(len(pixels), -1) for k, v in one.inputs.items() if k not in seen}
        return self._placed(Prompt({**rows, **seen}, one.spans * len(pixels), one.answer))

    def _calibrate(
        self, pixels: Sequence[Pixels | None], queries: Sequence[Query], prompt: Prompt | None = None
    ) -> Reference | None:
        """What the interventions' calibration passes find; `prompt` is the whole prompt, for those that want it."""

        def whole() -> Prompt:
            if prompt is None:
                raise SpecError("an intervention wants a pass over the whole prompt; give it")
            return prompt

        return self._reference(lambda: self.write(pixels, queries, [()] * len(queries)), whole)

    def _referred(self, pixels: Pixels, query: Query, hits: Hits) -> Reference | None:
        """The same for one prompt that every image (B, 3, H, W) shares."""
        return self._reference(lambda: self._shared(pixels, query, ()), lambda: self._shared(pixels, query, hits))

    def _reference(self, bare: Callable[[], Prompt], whole: Callable[[], Prompt]) -> Reference | None:
        wanted = {part.needs.calibration for part in self.interventions}
        found = Reference()
        if "bare" in wanted:
            probe = Probe()
            self._pass(bare(), (probe,), None, 1)
            found = probe.reference()
        if parts := [part for part in self.interventions if part.needs.calibration == "whole"]:
            prompt = whole()
            with (
                pruning(self.network, self.pruners, prompt.spans),
                calibrating(self.network, parts, prompt.spans, found.notes),
            ):
                self.network(**prompt.inputs, use_cache=False, logits_to_keep=1)
        return found if wanted - {"none"} else None

    def _pass(self, prompt: Prompt, parts: Sequence[Intervention], reference: Reference | None, keep: int) -> Tensor:
        """Logits (B, keep, V) of the last `keep` tokens."""
        with self._at_work(parts, prompt, reference):
            made: Tensor = self.network(**prompt.inputs, use_cache=False, logits_to_keep=keep).logits
        return made

    @contextmanager
    def _at_work(self, parts: Sequence[Intervention], prompt: Prompt, reference: Reference | None) -> Iterator[Kept]:
        """Pruners outside, interventions inside: these act on what is left."""
        with (
            pruning(self.network, self.pruners, prompt.spans) as kept,
            intervening(self.network, parts, prompt.spans, reference),
        ):
            yield kept

    def _placed(self, prompt: Prompt) -> Prompt:
        device, dtype = self.network.device, self.network.dtype
        inputs = {k: v.to(device, dtype) if v.is_floating_point() else v.to(device) for k, v in prompt.inputs.items()}
        return Prompt(inputs, prompt.spans, None if prompt.answer is None else prompt.answer.to(device))

    def _checked(self, pixels: Pixels, batch: int) -> Pixels:
        shape = tuple(pixels.shape)
        if len(shape) != 4 or shape[:2] != (batch, 3) or not pixels.is_floating_point() or 0 in shape:
            raise SpecError(f"pixels of shape {shape} and type {pixels.dtype}; an image is ({batch}, 3, H, W) float32")
        low, high = (float(x) for x in pixels.detach().aminmax())
        if not -GREY_LEVELS <= low <= high <= GREY_LEVELS:  # NaN too
            raise SpecError(f"pixels from {low:g} to {high:g}; they lie in [0, 1], so divide grey levels by 255")
        return pixels

    @property
    def _longest(self) -> int | None:
        return getattr(self.network.config.get_text_config(), "max_position_embeddings", None)

    @property
    def _end(self) -> int:
        known = self.network.generation_config.eos_token_id
        known = self.processor.tokenizer.eos_token_id if known is None else known
        return int(known[0] if isinstance(known, list) else known)

    @cached_property
    def _greedy(self) -> Any:
        """Greedy decoding, whatever the checkpoint's own habits are."""
        from transformers import GenerationConfig

        config: Any = GenerationConfig
        return config(
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=1.0,
            top_p=1.0,
            top_k=50,
            repetition_penalty=1.0,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            eos_token_id=self.network.generation_config.eos_token_id or self._end,
        )

    @contextmanager
    def _bar(self, total: int) -> Iterator[Callable[[int], None]]:
        if not self.progress:
            yield lambda done: None
            return
        from rich.progress import Progress

        with Progress(transient=True) as bar:
            task = bar.add_task("answering", total=total)
            yield lambda done: bar.advance(task, done)
