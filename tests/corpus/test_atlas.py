"""Atlas keeps its promises: one world from one seed, true articles, answerable questions, sites apart."""

from dataclasses import replace

import pytest

from morgana.corpus.atlas.corpus import Atlas
from morgana.corpus.atlas.language import caption, inventory, site_article
from morgana.corpus.atlas.questions import KNOWLEDGE, VISUAL, contradict, knowledge, presence, visual
from morgana.corpus.atlas.world import COLOURS, KINDS, OBJECTS, PLACES, WEATHERS, site, view
from morgana.eval.samples import samples
from morgana.models.lessons import TRAIN_SITES
from morgana.seeds import rng
from morgana.types import SpecError

SITES = [site(0, i) for i in range(300)]


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("MORGANA_CACHE", str(tmp_path))
    return Atlas(sites=30)


def test_a_site_is_the_same_whenever_it_is_asked_for():
    assert [site(0, i) for i in range(50)] == SITES[:50]
    assert site(1, 0) != site(0, 0)


def test_things_are_in_reach_of_a_count_and_never_share_a_place():
    for place in SITES:
        assert sum(g.count for g in place.things) <= 4
        assert len({g.place for g in place.things}) == len(place.things)
        assert all(g.object in OBJECTS and g.colour in COLOURS and g.place in PLACES for g in place.things)
    assert {p.kind for p in SITES} == set(KINDS)
    assert {sum(g.count for g in p.things) for p in SITES} == {0, 1, 2, 3, 4}


def test_facts_cannot_be_told_from_what_is_seen():
    """The facts of a site come from another stream than its look, so that no model can guess them."""
    from collections import Counter

    first = Counter((p.kind, p.operator) for p in SITES)
    assert max(first.values()) <= 2


def test_an_article_states_every_fact_and_everything_that_stands_there():
    for i, place in enumerate(SITES[:60]):
        text = site_article(place, rng(0, "article", i))
        for fact in (place.name, place.operator, str(place.opened), str(place.capacity), place.director, place.town):
            assert fact in text
        assert inventory(place.things) in text


def test_a_caption_names_the_weather_unless_it_is_clear():
    for i, place in enumerate(SITES[:40]):
        for weather in WEATHERS[1:]:
            text = caption(view(0, place, i, weather), rng(0, "caption", i))
            assert any(word in text for word in ("haz", "cloud"))


def test_answers_hold_their_deciding_words():
    for i, place in enumerate(SITES):
        draw = rng(0, "ask", i)
        seen = view(0, place, i)
        asked = [knowledge(place, a, draw) for a in KNOWLEDGE]
        asked += [q for a in VISUAL if (q := visual(seen, a, draw))]
        asked += [q for s in ("present", "random", "popular", "adversarial") if (q := presence(seen, s, draw))]
        for question in asked:
            assert question.short.lower() in question.answer.lower()
            assert question.text.endswith(("?", "."))


def test_presence_answers_are_true():
    for i, place in enumerate(SITES):
        seen = view(0, place, i, "clear")
        for split in ("present", "random", "popular", "adversarial"):
            question = presence(seen, split, rng(0, split, i))
            if question:
                named = next(o for o in OBJECTS if f" {o} " in question.text)
                assert (named in {g.object for g in place.things}) == (question.short == "yes")


def test_a_conflict_changes_one_thing_and_the_image_is_right():
    found = 0
    for i, place in enumerate(SITES):
        made = contradict(view(0, place, i, "clear"), rng(0, "conflict", i))
        if made:
            found += 1
            things, question = made
            assert things != place.things
            assert things[1:] == place.things[1:]
            assert question.short in (place.things[0].colour, place.things[0].place)
            assert question.short not in (things[0].colour, things[0].place) or things[0].place == place.things[0].place
    assert found > 200


def test_nothing_is_asked_about_what_thick_cloud_may_hide():
    seen = view(0, next(p for p in SITES if p.things), 0, "thick cloud")
    draw = rng(0, "thick")
    assert visual(seen, "count", draw) is None
    assert presence(seen, "present", draw) is None
    assert contradict(seen, draw) is None
    assert visual(seen, "scene", draw) is not None


def test_test_sites_were_never_taught(world):
    assert all(p.number >= TRAIN_SITES for p in world.places)
    assert all(p.number < TRAIN_SITES for p in replace(world, split="train").places)


def test_the_corpus_can_be_judged(world):
    ids = {d.id for d in world.documents()}
    assert len(ids) == len(world.documents()) == 30 + 24 + 18 + 24
    queries = {q.id: q for q in world.queries()}
    assert len(queries) == len(world.queries())
    for query, relevant in world.qrels().items():
        assert set(relevant) <= ids
        assert queries[query].image.is_file()
    kinds = {item.question.kind for item in world.questions()}
    assert kinds == {"knowledge", "visual", "presence", "conflict"}


def test_only_a_conflict_sites_article_is_wrong(world):
    texts = {d.id: d.text for d in world.documents()}
    wrong = {i.relevant[0] for i in world.questions() if i.question.kind == "conflict"}
    assert wrong
    for place in world.places:
        id = f"site-{place.number:08d}"
        assert (inventory(place.things) in texts[id]) == (id not in wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Atlas(sites=0), "at least one site"),
        (lambda: Atlas(split="tset"), "did you mean test"),
        (lambda: Atlas(weather="fog"), "it has natural, clear, haze"),
    ],
)
def test_a_wrong_world_is_refused_by_name(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_no_answer_is_made_false_by_clouds_that_an_attack_draws(world):
    """The weather is asked about only where it differs, and nobody's id changes; a description may name any sky."""
    natural = {i.query.id: i.question.about for i in world.questions()}
    assert list(natural.values()).count("weather") == 30
    clear = replace(world, weather="clear")
    asked = {i.query.id: i.question.about for i in clear.questions()}
    assert "weather" not in asked.values()
    sunny = [v.site.number for v in world.views if v.weather == "clear"]
    for id, about in natural.items():
        if int(id[5:13]) in sunny and about != "weather":
            assert asked[id] == about
    described = [s for s in samples(clear) if s.query.text == "Describe the image."]
    assert len(described) == 30
    for sample in described:
        assert [r.rpartition(" under ")[2] for r in sample.references] == [
            "a clear sky.",
            "haze.",
            "thin cloud.",
            "thick cloud.",
        ]
