"""What the reference model is trained on is, token for token, what it is asked with."""

from dataclasses import replace

import pytest
from tokenizers import Tokenizer

from morgana.corpus.atlas.questions import UNKNOWN
from morgana.corpus.atlas.world import OBJECTS
from morgana.generation import prompts
from morgana.generation.reference import reference_processor
from morgana.models.conversation import PATCHES, Writer
from morgana.models.lessons import lesson, reading
from morgana.models.tokenizer import train_tokenizer
from morgana.seeds import rng
from morgana.types import Document, Hit, Query


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "tokenizer.json"
    train_tokenizer(path, count=200)
    return path


def test_a_lesson_reads_like_the_processors_prompt(words, tmp_path):
    import torch

    writer = Writer(Tokenizer.from_file(str(words)))
    processor = reference_processor(words, tmp_path)
    taught = lesson(rng(0, "test"), 0, articles=2, turns=3)
    first = taught.questions[0]
    ids, weights = writer.conversation(replace(taught, questions=(first,)), None)
    hits = tuple(Hit(Document(str(i), text), 1.0) for i, text in enumerate(taught.articles))
    prompt = prompts.write(processor, [torch.rand(1, 3, 96, 96)], [Query("q", first.text)], [hits])
    asked = prompt.inputs["input_ids"][0].tolist()
    assert ids[: len(asked)] == asked
    assert ids.count(writer.image) == PATCHES
    assert writer.tokenizer.decode(ids[len(asked) :]).strip() == first.answer
    assert weights[len(asked) :] == [1.0] * (len(ids) - len(asked))


def test_a_reading_lesson_asks_only_what_its_articles_say():
    draw = rng(0, "reading")
    for _ in range(50):
        taught = reading(draw, 0, 3, 9)
        for question in taught.questions:
            assert any(question.short in text for text in taught.articles)


def test_lessons_never_name_the_place_before_the_visual_questions():
    draw = rng(0, "order")
    for _ in range(100):
        kinds = [q.kind for q in lesson(draw, 0, 3, 6).questions]
        first = kinds.index("knowledge") if "knowledge" in kinds else len(kinds)
        assert all(kind == "knowledge" for kind in kinds[first:])


def test_some_lessons_ask_for_what_only_an_article_speaks_of():
    draw, mistaken = rng(0, "mistaken"), 0
    for _ in range(100):
        taught = lesson(draw, 0, 3, 6)
        there = {group.object for group in taught.view.site.things}
        for question in taught.questions:
            if question.kind == "mistaken":
                mistaken += 1
                thing = next(o for o in OBJECTS if o in question.text)
                assert thing not in there
                assert any(thing in text for text in taught.articles)
                assert question.short == "no"
    assert mistaken > 10


def test_some_lessons_have_the_article_of_a_like_place_beside_the_right_one():
    """It stands behind the right one in four of five, since retrievers put the best first."""
    draw, beside, behind = rng(0, "rival"), 0, 0
    for _ in range(300):
        taught = lesson(draw, 0, 3, 6)
        named = [text for text in taught.articles if f"the {taught.view.site.kind} is called" in text]
        known = any(q.kind == "knowledge" and q.short != UNKNOWN for q in taught.questions)
        assert len(named) <= 1 or known  # without the right article, one of its kind would mislead
        if len(named) == 2:
            beside += 1
            behind += f"called {taught.view.site.name}." in named[0]
            assert len({text.split("Seen from above ")[1].split(".")[0] for text in named}) == 2
    assert beside > 15
    assert 0.65 < behind / beside < 0.95
