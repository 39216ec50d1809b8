"""The model cards' figures judge answers fairly."""

import pytest

from morgana.corpus.atlas.corpus import Atlas
from morgana.models.card import contexts, elsewhere, judge_generator, moved_to, right, table, truth
from morgana.types import Answer


class Knower:
    """Answers every question from its key: what a perfect model would say, whatever it is shown."""

    def __init__(self, world):
        self.key = {i.query.id: i.question.answer for i in world.questions()}

    def __call__(self, queries, hits):
        return [Answer(self.key[q.id], h) for q, h in zip(queries, hits, strict=True)]


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("MORGANA_CACHE", str(tmp_path))
    return Atlas(sites=12, weather="clear")


@pytest.mark.parametrize(
    ("answer", "short", "expected"),
    [
        ("The boats are red.", "red", True),
        ("The boats are in the north-east.", "north", False),
        ("It opened in 1974.", "197", False),
        ("This quarry is operated by Keystone Trust.", "keystone trust", True),
        ("No, there is no boat.", "yes", False),
        ("", "red", False),
    ],
)
def test_an_answer_is_right_if_it_holds_the_deciding_words_whole(answer, short, expected):
    assert right(answer, short) is expected


def test_the_right_article_is_among_three_of_other_kinds(world):
    for item in world.questions():
        hits = contexts(world, item)
        assert len(hits) == 3
        assert item.relevant[0] in {h.document.id for h in hits}
        others = [h.document for h in hits if h.document.id != item.relevant[0]]
        assert all(d.metadata["kind"] != item.kind for d in others)


def test_a_rival_is_another_site_of_the_same_kind(tmp_path, monkeypatch):
    monkeypatch.setenv("MORGANA_CACHE", str(tmp_path))
    world = Atlas(sites=60, weather="clear")
    found = [(item, contexts(world, item, rival=True)) for item in world.questions()]
    assert any(hits == () for _, hits in found)  # no other site of the kind
    for item, hits in found:
        if hits:
            kinds = [h.document.metadata["kind"] for h in hits]
            assert kinds.count(item.kind) == 2
            assert len({h.document.id for h in hits} - {item.relevant[0]}) == 2


def test_the_right_article_moves_and_the_others_keep_their_order(world):
    for item in world.questions():
        found = contexts(world, item)
        others = [hit for hit in found if hit.document.id != item.relevant[0]]
        for place in range(3):
            moved = moved_to(place, found, item)
            assert moved[place].document.id == item.relevant[0]
            assert [hit for i, hit in enumerate(moved) if i != place] == others


def test_the_other_image_is_of_another_kind(world):
    items = world.questions()
    by_image = {i.query.image: i.kind for i in items}
    for n, item in enumerate(items):
        assert by_image[elsewhere(items, n).query.image] != item.kind


def test_a_perfect_model_scores_one_and_every_row_has_its_interval(world):
    rows = judge_generator(Knower(world), sites=12)
    assert {r.estimate.value for r in rows if "true of that image" not in r.what} == {1.0}
    assert all(r.estimate.low < 1.0 for r in rows)
    assert next(r for r in rows if r.what == "scene, true of that image").estimate.value == 0
    assert next(r for r in rows if r.what == "colour, true of that image").estimate.value < 0.5
    assert "knowledge |" in table(rows)
    assert "another site's image" in table(rows)


def test_the_truth_about_its_own_place_is_what_the_key_says(world):
    places = {place.number: place for place in world.places}
    told = [
        (i, truth(i.question, places[i.site])) for i in world.questions() if i.question.kind in ("visual", "presence")
    ]
    known = [(i, text) for i, text in told if text is not None]
    assert {i.question.about for i, _ in known} >= {"scene", "count", "colour", "place", "present", "random"}
    assert all(right(text, i.question.short) for i, text in known)
