"""Retriever, compressor, runnable and chat model: Morgana's parts behind LangChain's interfaces."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from fakes import FakeGenerator
from langchain_core.documents import Document as Theirs
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from pydantic import ValidationError
from toyworld import Eye, Reader, ToyWorld

from morgana.corpus.images import load, save
from morgana.index import build
from morgana.interop.langchain import ChatModel, Compressor, Retriever, Runnable
from morgana.pipeline import Pipeline
from morgana.retrieval.retrievers.dense import Dense
from morgana.types import Answer, Document, Hit, SpecError


@dataclass(frozen=True)
class Reverse:
    """The last first, with scores that fall again."""

    def __call__(self, queries, hits):
        return [tuple(Hit(hit.document, 1 / i) for i, hit in enumerate(row[::-1], 1)) for row in hits]


@dataclass(frozen=True)
class Echo:
    """Says what it was asked and read, and how bright the image was."""

    def __call__(self, queries, hits):
        light = [round(float(load(q.image).mean()), 2) if q.image else None for q in queries]
        read = [",".join(h.document.id for h in row) for row in hits]
        return [Answer(f"{q.text}|{n}|{i}", h) for q, n, i, h in zip(queries, read, light, hits, strict=True)]


@pytest.fixture
def world(tmp_path):
    made = ToyWorld(str(tmp_path), sites=4)
    build(made, Eye(), tmp_path / "x.index", progress=False)
    return made


@pytest.fixture
def pipeline(world, tmp_path):
    return Pipeline(Dense(str(tmp_path / "x.index"), Eye()), (), Reader())


def test_a_retriever_finds_what_the_pipeline_finds(world, pipeline):
    query = world.queries()[0]
    (hits,) = pipeline.retrieve([query], 3)
    found = Retriever(retriever=pipeline, k=3).invoke(query.text, image=query.image)
    assert [(d.id, d.metadata["score"]) for d in found] == [(h.document.id, h.score) for h in hits]
    turned = Retriever(retriever=pipeline, stages=(Reverse(),), k=3).invoke(query.text, image=query.image)
    assert [d.id for d in turned] == [d.id for d in found][::-1]


def test_parts_may_be_named_by_their_specs(tmp_path):
    documents = [Document(f"d{n}", f"text {n}") for n in range(3)]
    build(documents, __import__("morgana.spec").spec.parse("HashEncoder"), tmp_path / "h.index", progress=False)
    assert Retriever(retriever=f"Dense({str(tmp_path / 'h.index')!r})", k=1).invoke("text 2")[0].id == "d2"
    with pytest.raises(ValidationError, match="no part is called 'Dens'"):
        Retriever(retriever="Dens('x')")


def test_a_compressor_hands_back_the_same_documents_with_new_scores():
    given = [Theirs("a", id="1", metadata={"k": (1, 2)}), Theirs("b"), Theirs("c", id="3")]
    found = Compressor(stage=Reverse()).compress_documents(given, "q")
    assert [d.page_content for d in found] == ["c", "b", "a"]
    assert [d.id for d in found] == ["3", None, "1"]
    assert found[2].metadata == {"k": (1, 2), "score": pytest.approx(1 / 3)}
    assert "score" not in given[0].metadata


def test_a_threshold_compresses_by_the_scores_of_the_retriever():
    scored = [Theirs(str(s), metadata={"score": s}) for s in (0.9, 0.85, 0.2)]
    kept = Compressor(stage="RelativeThreshold(0.5)").compress_documents(scored, "q")
    assert [d.page_content for d in kept] == ["0.9", "0.85"]


def test_a_runnable_answers_as_the_pipeline_does_in_one_call(world, pipeline):
    queries = world.queries()[:4]
    answers = pipeline(queries, 2)
    chain = Runnable(pipeline, k=2)
    asked = [{"question": q.text, "image": str(q.image)} for q in queries]
    found = chain.batch(asked)
    assert [f["answer"] for f in found] == [a.text for a in answers]
    assert [[d.id for d in f["documents"]] for f in found] == [[h.document.id for h in a.hits] for a in answers]
    assert chain.invoke(queries[1])["answer"] == answers[1].text
    assert (chain | (lambda out: out["answer"].upper())).invoke(asked[0]) == answers[0].text.upper()
    with pytest.raises(SpecError, match="is no question"):
        chain.invoke({"query": "x"})


def test_a_batch_is_one_call():
    generator = FakeGenerator(lambda pixels: "seen")
    chain = Runnable(Pipeline(lambda queries, k: [()] * len(queries), (), generator))
    assert [out["answer"] for out in chain.batch(["a", "b", "c"])] == ["no image"] * 3
    assert generator.calls == [3]


def picture(tmp_path, level=0.5):
    save(torch.full((1, 3, 8, 8), level), tmp_path / "p.png")
    return base64.b64encode((tmp_path / "p.png").read_bytes()).decode()


def blocks(data):
    return [
        {"type": "image", "base64": data, "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "image", "source_type": "base64", "data": data, "mime_type": "image/png"},
    ]


@pytest.mark.parametrize("number", range(3))
def test_an_image_block_is_the_image_of_the_question(number, tmp_path):
    block = blocks(picture(tmp_path))[number]
    said = ChatModel(generator=Echo()).invoke([HumanMessage([{"type": "text", "text": "what?"}, block])])
    assert said.content == "what?||0.5"


def test_what_was_said_before_and_documents_are_read():
    model = ChatModel(generator=Echo())
    talk = [SystemMessage("be brief"), HumanMessage("hi"), AIMessage("hello"), HumanMessage("who?")]
    said = model.invoke(talk, documents=[Theirs("text", id="d1"), Theirs("other")])
    assert said.content == "system: be brief\nuser: hi\nassistant: hello\nwho?|d1,#2|None"
    assert model.invoke("one two three", stop=[" three", " two"]).content == "one"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([{"type": "image", "url": "https://github.com/x.png"}], "not followed"),
        ([{"type": "image", "base64": "!!!", "mime_type": "image/png"}], "not base64"),
        ([{"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}], "type 'audio'"),
    ],
)
def test_other_blocks_are_refused(content, reason):
    with pytest.raises(SpecError, match=reason):
        ChatModel(generator=Echo()).invoke([HumanMessage(content)])


def test_two_images_and_unknown_arguments_are_refused(tmp_path):
    data = picture(tmp_path)
    with pytest.raises(SpecError, match="2 images"):
        ChatModel(generator=Echo()).invoke([HumanMessage(blocks(data)[:1]), HumanMessage(blocks(data)[:1])])
    with pytest.raises(SpecError, match="not tools"):
        ChatModel(generator=Echo()).invoke("x", tools=[])
    with pytest.raises(ValidationError, match="answers greedily"):
        ChatModel(temperature=0.7)


class Pausing:
    """Fails if two threads are in it at once."""

    inside = 0

    def __call__(self, queries, hits):
        self.inside += 1
        assert self.inside == 1
        answers = [Answer(query.text) for query in queries]
        self.pause.wait(0.02)
        self.inside -= 1
        return answers

    @cached_property
    def pause(self):
        from threading import Event

        return Event()


def test_a_batch_of_messages_enters_the_model_one_by_one():
    found = ChatModel(generator=Pausing()).batch([str(n) for n in range(6)])
    assert [message.content for message in found] == [str(n) for n in range(6)]


def test_hf_answers_with_the_image_as_it_does_in_a_pipeline(tiny_llava_folder, tmp_path):
    from morgana.generation.generators.hf import HF
    from morgana.types import Query

    data = picture(tmp_path)
    reader = HF(str(tiny_llava_folder), max_new_tokens=4)
    hits = (Hit(Document("d", "The harbour is run by Bluewater."), 1.0),)
    (answer,) = reader([Query("q", "who?", tmp_path / "p.png")], [hits])
    model = ChatModel(model=str(tiny_llava_folder), max_tokens=4)
    asked = [HumanMessage([{"type": "text", "text": "who?"}, blocks(data)[0]])]
    said = model.invoke(asked, documents=[Theirs("The harbour is run by Bluewater.")])
    assert said.content == answer.text
    assert said.response_metadata["model_name"] == str(tiny_llava_folder)
