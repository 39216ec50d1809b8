from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from morgana.attacks.composed import Composed
from morgana.attacks.goals.force_text import ForceText
from morgana.attacks.goals.hide import Hide
from morgana.attacks.goals.hijack import Hijack
from morgana.attacks.goals.impersonate import Impersonate
from morgana.attacks.searches.pgd import PGD
from morgana.attacks.target import Surroundings, Target, aim
from morgana.attacks.threats.linf import Linf
from morgana.seeds import seeded
from morgana.spec import parse
from morgana.types import Document, Hit, Query, SpecError


def attack(world, goal, epsilon=32 / 255, steps=12, **known):
    with seeded(0, "goals"):
        return Composed(goal, Linf(epsilon), PGD(steps=steps)).attack(world.tiles, world.encoder, world.target(**known))


def test_hide_loses_the_sources(world):
    def sources(pixels):
        rows = zip(world.hits(pixels), world.queries, strict=True)
        return sum(hit.document.id in world.qrels[query.id] for hits, query in rows for hit in hits)

    made = attack(world, Hide())
    assert sources(made.pixels) < sources(world.tiles) / 2
    trace = attack(world, Hide(clean=0), known=False).trace
    assert (trace[-1] > trace[0] + 0.1).all()


def test_hide_moves_from_the_clean_image_itself(world):
    """The clean term alone is flat there; the sources are not."""
    pixels = world.tiles.clone().requires_grad_()
    Hide()(world.encoder, world.target())(pixels).sum().backward()
    assert (pixels.grad.flatten(1).abs().amax(1) > 1e-4).all()


def test_impersonate_is_retrieved_first(world):
    document = "scene3-7"
    made = attack(world, Impersonate(document), epsilon=64 / 255, steps=25)
    first = [hits[0].document.id == document for hits in world.hits(made.pixels)]
    assert torch.tensor(first).float().mean() > 0.5
    assert ((made.score > 0) == torch.tensor(first)).float().mean() >= 0.9  # positive exactly when first


def test_hijack_ranks_the_topic_above_everything(world):
    made = attack(world, Hijack("weather"))
    assert world.weather(world.tiles) < 0.2
    assert world.weather(made.pixels) > 0.8


def test_hijack_terms_by_hand():
    """Two targets, one source, one neutral, in a plane: the docstring's formulas typed out."""
    scores = torch.tensor([[0.5, 0.3, 0.6, 0.1]])
    wanted, sources = torch.tensor([True, True, False, False]), torch.tensor([[False, False, True, False]])

    def value(**terms):
        goal = Hijack("w", **{"pull": 0, "suppress": 0, "rank": 0, "temperature": 0.1, **terms})
        return float(goal.value(scores, wanted, sources))

    assert value(pull=1) == pytest.approx(0.1 * torch.tensor([5.0, 3.0]).exp().mean().log())
    assert value(suppress=1) == pytest.approx(-0.6)
    assert value(suppress=1, floor=0.45) == pytest.approx(-0.15)
    gap = (0.6 - 0.3 + 0.05) / 0.1
    assert value(rank=1, k=2) == pytest.approx(-0.1 * torch.tensor(gap).exp().log1p())
    assert value(rank=1, k=1) == pytest.approx(-0.1 * torch.tensor((0.6 - 0.5 + 0.05) / 0.1).exp().log1p())
    assert value(rank=1, k=9) == value(rank=1, k=2)  # a topic of two documents can fill two places


def test_objectives_are_larger_when_the_attacker_is_nearer(world):
    """Pixels of the wanted kind score above the clean ones, for every retrieval goal."""
    weather = world.around.ids.index("weather-0")
    moved = normalize(world.around.matrix[weather : weather + 1].expand(len(world.tiles), -1), dim=1)

    class Fixed:
        def encode_image(self, pixels):
            return moved if pixels is None else world.encoder.encode_image(pixels)

    for goal in (Hijack("weather"), Impersonate("weather-0"), Hide()):
        objective = goal(Fixed(), world.target())
        assert (objective(None) > objective(world.tiles)).float().mean() > 0.9


def test_unknown_sources_are_the_clean_list_without_the_topic(world):
    from morgana.attacks.goals._terms import source_mask

    target, never = world.target(known=False), world.around.about("weather")
    mask = source_mask(target, world.around, never, 5)
    assert mask.sum(1).tolist() == [5] * len(world.tiles)
    assert not mask[:, never].any()
    best = [h.document.id for h in world.hits(world.tiles, 40)[0] if h.document.metadata["topic"] != "weather"][:5]
    assert {world.around.ids[i] for i in mask[0].nonzero().flatten().tolist()} == set(best)
    known = source_mask(world.target(), world.around, never, 5)
    assert {world.around.ids[i] for i in known[0].nonzero().flatten().tolist()} == {"scene0-4", "scene0-5"}


def test_force_text_asks_the_generator_row_by_row():
    class Reader:
        def loss(self, pixels, query, hits, text):
            assert pixels.shape == (1, 3, 4, 4)
            return (pixels.mean() - len(text) / 10 - len(query.text) - len(hits)).square()[None]

    hits = ((Hit(Document("a"), 1.0),), ())
    objective = ForceText("hello")(Reader(), Target((Query("1", "?"), Query("2", "")), hits=hits))
    pixels = torch.zeros(2, 3, 4, 4, requires_grad=True)
    value = objective(pixels)
    assert value.tolist() == pytest.approx([-6.25, -0.25])
    value.sum().backward()
    assert (pixels.grad != 0).all()
    assert (ForceText.victim, Hijack.victim) == ("generator", "encoder")


def test_a_document_of_two_vectors_counts_once():
    class Twice:
        embeddings = (("a", "a", "b"), torch.tensor([[1.0, 0], [0, 1], [0.6, 0.8]]))

        def document(self, id):
            return Document(id)

    around = Surroundings(Twice())
    assert around.ids == ("a", "b")
    assert around.scores(torch.tensor([[0.0, 1.0]])).tolist() == [[1.0, pytest.approx(0.8)]]
    assert [hit.document.id for hit in around.search(torch.tensor([[0.6, 0.8]]), 9)[0]] == ["b", "a"]
    changed = around.replaced({"a": torch.tensor([-1.0, 0])})
    assert changed.matrix[:2].tolist() == [[1, 0], [-1, 0]]
    assert around.matrix[1].tolist() == [0, 1]


def test_what_is_not_there_is_named(world):
    target = world.target()
    with pytest.raises(SpecError, match="did you mean weather"):
        Hijack("wheather")(world.encoder, target)
    with pytest.raises(SpecError, match="did you mean scene3-7"):
        Impersonate("scene3_7")(world.encoder, target)
    with pytest.raises(SpecError, match="needs an index"):
        Hide()(world.encoder, Target((Query("1"),)))
    with pytest.raises(SpecError, match="one image a query"):
        aim(world.around, world.encoder, world.tiles[:2], world.queries[:3])
    with pytest.raises(SpecError, match="empty one"):
        parse("ForceText(' ')")
    with pytest.raises(SpecError, match="k ≥ 1"):
        parse("Hijack('weather', k=0)")
