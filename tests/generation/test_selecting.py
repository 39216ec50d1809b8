"""Selections, merging and sharing against brute force, references in float64, and planted tokens."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from morgana.generation.merging import bipartite, clusters, join, means, peaks
from morgana.generation.pruner import Conditional, asked, top
from morgana.generation.pruning.adaptinfer import AdaptInfer
from morgana.generation.pruning.aim_prune import AIMPrune
from morgana.generation.pruning.catp import CATP
from morgana.generation.pruning.debiased import Debiased
from morgana.generation.pruning.fastervlm import FasterVLM
from morgana.generation.pruning.flowcut import FlowCut, closing
from morgana.generation.pruning.fopru import FoPru
from morgana.generation.pruning.fourier import FourierVLM, dct, resample
from morgana.generation.pruning.hiprune import HiPrune
from morgana.generation.pruning.mmtok import MMTok
from morgana.generation.pruning.todre import ToDRE
from morgana.generation.pruning.todre_late import ToDRELate
from morgana.generation.pruning.transprune import transition
from morgana.generation.pruning.uniform_grid import UniformGrid, lattice
from morgana.generation.selecting import cosine, cover, farthest_first, marginal, max_sum
from morgana.generation.sharing import fair, tiles, together, window
from morgana.generation.sight import Eye, Operands, Sight
from morgana.generation.watching import Taken
from morgana.spec import components
from morgana.types import SpecError

LOT = torch.Generator().manual_seed(0)
SIDE, PLANTED = 4, 7
N = SIDE * SIDE


def rand(*shape):
    return torch.randn(*shape, generator=LOT, dtype=torch.float64)


def taken(length, planted, heads=2, width=8):
    """Random operands in which everyone looks at one token."""
    query, key, value = (rand(1, heads, length, width) for _ in range(3))
    query[..., 0] = 2
    key[:, :, planted, 0] = 8
    value[:, :, planted] *= 3
    return Taken(query, key, value, width**-0.5)


def sight(layer=0, planted=PLANTED, states=None):
    """One image of 16 tokens at 3 to 19 of a prompt of 28; one of them is what everybody looks at and asks for."""
    first, length = 3, 28
    row = rand(length, 12)
    row[first : first + N] = states if states is not None else row[first : first + N]
    question = torch.arange(21, 27)
    if states is None:
        row[question] = row[first + planted] + 0.01 * rand(len(question), 12)
    index, tokens = torch.arange(length), torch.arange(first, first + N)
    projected = rand(N, 6)
    projected[planted] *= 30

    class Square(torch.nn.Module):
        def forward(self, x):
            return x.square()

    eye = Eye({i: taken(N + 1, planted + 1) for i in range(4)}, 4, N, None, projected, Square())
    moves = {i: tuple((row, turned(row, first + planted)) for _ in range(2)) for i in range(3)}
    return Sight(
        layer=layer,
        tokens=tokens,
        places=torch.arange(N),
        states=row[tokens],
        text=torch.tensor([i for i in range(length) if not first <= i < first + N]),
        question=question,
        visual=tokens,
        row=row,
        index=index,
        eye=eye,
        operands={i: Operands(taken(length, first + planted), index) for i in range(4)},
        moves=moves,
        moved=dict.fromkeys(moves, index),
    )


def turned(row, planted):
    made = row.clone()
    made[planted] *= -3
    return made


BLIND = {"RandomTokens", "UniformGrid", "ToDRE", "ToDRELate", "AIMMerge", "FourierVLM", "FlowCut"}


@pytest.mark.parametrize("cls", [c for c in components("pruner") if c.__name__ not in BLIND], ids=lambda c: c.__name__)
def test_a_planted_salient_token_is_kept(cls):
    pruner = CATP(weight=5.0) if cls is CATP else cls()  # at 0.7, covering the rest may weigh more
    for stage in pruner.stages(4):
        if stage.done <= 1:
            scene = sight(stage.layer)
            choice = pruner.choose(scene, 4)
            assert PLANTED in choice.index
            assert len(choice.index) == 4
            if choice.states is not None and cls.__name__ != "Turbo":
                place = choice.index.tolist().index(PLANTED)
                torch.testing.assert_close(choice.states[place], scene.states[PLANTED])


@pytest.mark.parametrize("name", ["IDPruner", "ToDRE", "MMTok", "CATP", "ZerothOrder", "AIMMerge", "Turbo"])
def test_duplicates_collapse(name):
    cls = {c.__name__: c for c in components("pruner")}[name]
    kinds = torch.nn.functional.normalize(rand(4, 12), dim=-1).repeat_interleave(4, 0)
    merges = name in ("AIMMerge", "Turbo")  # which see neighbours first
    order = torch.arange(N) if merges else torch.randperm(N, generator=LOT)
    scene = sight(states=kinds[order])
    if name in ("IDPruner", "ZerothOrder", "CATP", "MMTok"):  # diversity alone
        pruner = {
            "IDPruner": lambda: cls(balance=0.0),
            "CATP": lambda: cls(weight=0.0),
            "MMTok": lambda: cls(image_heat=0.05),
        }.get(name, cls)()
    else:
        pruner = cls(alpha=0.0) if name == "Turbo" else cls()
    choice = pruner.choose(scene, 4)
    found = scene.states[choice.index] if choice.states is None else choice.states
    assert sorted(cosine(found, kinds[::4]).argmax(1).tolist()) == [0, 1, 2, 3]
    assert (cosine(found, kinds[::4]).amax(1) > 0.999).all()


def test_cosines_are_of_full_precision_under_autocast():
    states = rand(6, 9).float()
    wanted = cosine(states)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cosine(states), wanted)
        assert farthest_first(cosine(states), 3, 0).tolist() == farthest_first(wanted, 3, 0).tolist()


def test_relevance_alone_is_top_k_and_diversity_alone_is_farthest_first():
    for _ in range(20):
        importance, similarity = rand(12).sigmoid(), cosine(rand(12, 5))
        assert marginal(importance, similarity, 5, 1.0).tolist() == top(importance, 5).index.tolist()
        chosen = [int(importance.argmax())]
        while len(chosen) < 5:
            rest = [i for i in range(12) if i not in chosen]
            chosen.append(min(rest, key=lambda i: (max(float(similarity[i, j]) for j in chosen), i)))
        assert marginal(importance, similarity, 5, 0.0).tolist() == sorted(chosen)
        assert farthest_first(similarity, 5, chosen[0]).tolist() == sorted(chosen)


def test_greedy_coverage_is_near_the_optimum():
    for _ in range(25):
        gains, bonus = rand(14, 10).relu(), rand(10).relu()

        def value(chosen, gains=gains, bonus=bonus):
            return float(gains[:, list(chosen)].amax(1).sum() + bonus[list(chosen)].sum())

        best = max(value(chosen) for chosen in itertools.combinations(range(10), 3))
        assert best >= value(cover(gains, 3, bonus).tolist()) >= (1 - 1 / math.e) * best


def test_max_sum_takes_the_least_summed_similarity():
    similarity = cosine(rand(9, 4))
    chosen = [3]
    while len(chosen) < 4:
        rest = [i for i in range(9) if i not in chosen]
        chosen.append(min(rest, key=lambda i: sum(float(similarity[i, j]) for j in chosen)))
    assert max_sum(similarity, 4, 3).tolist() == sorted(chosen)


def test_merging_keeps_every_tokens_share():
    states, count = rand(11, 6), 3
    choice = bipartite(states, count)
    assert len(choice.index) == count
    assert choice.index.tolist() == sorted(choice.index.tolist())
    sizes = torch.linalg.lstsq(choice.states.T, states.sum(0)).solution  # Σ sizes · means = Σ states
    torch.testing.assert_close(sizes.round(), sizes, atol=1e-8, rtol=0)
    assert int(sizes.sum().round()) == 11
    assert torch.equal(bipartite(states, 11).states, states)
    value = torch.zeros(11, dtype=torch.float64)
    value[4] = 10
    kept = bipartite(states, 6, value)
    assert torch.equal(kept.states[kept.index.tolist().index(4)], states[4])


def test_joining_averages_each_token_into_its_likeliest():
    states = torch.tensor([[1.0, 0], [0, 1], [0.9, 0.1], [0.1, 0.9], [1, 0.2]])
    choice = join(states, torch.tensor([0, 1]), torch.tensor([0, 1]))
    torch.testing.assert_close(choice.states, torch.stack([states[[0, 2, 4]].mean(0), states[[1, 3]].mean(0)]))


@pytest.mark.parametrize("cluster", [clusters, peaks])
def test_clusters_find_what_is_together(cluster):
    centre = torch.eye(3, 8).repeat_interleave(5, 0)
    states = centre + 0.01 * torch.randn(15, 8, generator=LOT)
    found = cluster(states, 3)
    assert len({tuple(sorted(set(found[5 * i : 5 * i + 5].tolist()))) for i in range(3)}) == 3
    assert all(len(set(found[5 * i : 5 * i + 5].tolist())) == 1 for i in range(3))
    weight = torch.arange(1.0, 16.0)
    merged = means(states, found, weight)
    assert merged.index.tolist() == [4, 9, 14]
    torch.testing.assert_close(merged.states[0], (states[:5] * weight[:5, None]).sum(0) / 15)


def test_attention_of_cls_is_what_the_equation_says():
    scene = sight()
    query, key = (x[0] for x in scene.eye.taken[2][:2])
    wanted = torch.zeros(N, dtype=torch.float64)
    for head in range(2):
        scores = [sum(query[head, 0, d] * key[head, j, d] for d in range(8)) / 8**0.5 for j in range(N + 1)]
        total = sum(math.exp(s) for s in scores)
        wanted += torch.tensor([math.exp(s) / total / 2 for s in scores[1:]], dtype=torch.float64)
    torch.testing.assert_close(scene.cls(-2), wanted)
    torch.testing.assert_close(FasterVLM().scores(scene), wanted)


def test_towers_give_the_attention_that_transformers_gives(tiny_llava_folder, pixels, query, hits):
    from morgana.generation.generators.hf import HF
    from morgana.generation.pruner import Choice, Stage, Watched
    from morgana.generation.shortening import pruning

    class Look:
        keep = 3
        seen = None

        def stages(self, depth):
            return (Stage(2, 1.0),)

        def watched(self, depth, eyes):
            return Watched(vision=(0, 1), text=(1,))

        def choose(self, sight, count):
            self.seen = sight
            return Choice(torch.arange(3))

    generator, look = HF(str(tiny_llava_folder)), Look()
    network, prompt = generator.network, generator.write([pixels[:1]], [query], [hits])
    with torch.no_grad(), pruning(network, (look,), prompt.spans):
        network(**prompt.inputs)
    try:
        network.set_attn_implementation("eager")
        with torch.no_grad():
            text = network(**prompt.inputs, output_attentions=True).attentions[1][0]
            eyes = network.get_encoder("image")(prompt.inputs["pixel_values"], output_attentions=True).attentions[1][0]
    finally:
        network.set_attn_implementation("sdpa")
    torch.testing.assert_close(look.seen.cls(1), eyes.mean(0)[0, 1:], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(look.seen.received(1), eyes.mean((0, 1))[1:], atol=1e-6, rtol=1e-4)
    rows, columns = look.seen.question, look.seen.tokens
    torch.testing.assert_close(
        look.seen.attention(1, rows, columns), text[:, rows][:, :, columns], atol=1e-6, rtol=1e-4
    )


@pytest.mark.parametrize("name", ["AdaptInfer", "CATP", "CATPLate", "MMTok", "Recoverable", "SEATS", "TransPrune"])
def test_without_a_question_the_words_behind_the_image_are_read(name):
    pruner = {c.__name__: c for c in components("pruner")}[name]()
    for stage in pruner.stages(4):
        if stage.done <= 1:
            scene = sight(stage.layer)
            behind = scene.text[scene.text > scene.visual[-1]]
            none = replace(scene, question=scene.question[:0])
            assert asked(none).tolist() == behind.tolist() == list(range(19, 28))
            found, wanted = (pruner.choose(one, 4) for one in (none, replace(scene, question=behind)))
            assert torch.equal(found.index, wanted.index)
    with pytest.raises(SpecError, match="no question and no words behind its images"):
        asked(replace(scene, question=scene.question[:0], text=scene.text[:3]))


def test_pagerank_is_five_steps_of_the_walk():
    scene = sight(2)
    logits = scene.logits(1, scene.tokens, scene.tokens)
    rank = [1 / N] * N
    walk = [[math.sqrt(float(logits[:, i, j].square().mean())) / 0.1 for j in range(N)] for i in range(N)]
    walk = [[math.exp(x - max(row)) for x in row] for row in walk]
    walk = [[x / sum(row) for x in row] for row in walk]
    for _ in range(5):
        rank = [sum(rank[i] * walk[i][j] for i in range(N)) for j in range(N)]
    torch.testing.assert_close(AIMPrune().scores(scene), torch.tensor(rank, dtype=torch.float64))


def test_transition_is_length_times_turn():
    given, made = rand(5, 3), rand(5, 3)
    turn = [1 - float(a @ b / a.norm() / b.norm()) for a, b in zip(given, made, strict=True)]
    wanted = [
        float(b.norm() / a.norm()) * math.exp(t) / sum(map(math.exp, turn))
        for a, b, t in zip(given, made, turn, strict=True)
    ]
    torch.testing.assert_close(transition(given, made), torch.tensor(wanted, dtype=torch.float64))


def test_words_that_are_attended_to_weigh_more():
    scene = sight(2)
    words = scene.text[scene.text > scene.visual[-1]]
    weight = sum(scene.attention(1, words[i : i + 1], scene.question).mean(0)[0] for i in range(len(words)))
    wanted = sum(
        weight[t] / weight.sum() * scene.attention(1, scene.question[t : t + 1], scene.tokens).mean(0)[0]
        for t in range(len(scene.question))
    )
    torch.testing.assert_close(AdaptInfer().scores(scene), wanted)


def test_coverage_has_one_unit_for_the_words_and_alpha_for_the_image():
    made = MMTok(alpha=0.3).coverage(sight())
    assert made.shape == (6 + N, N)
    torch.testing.assert_close(made[:6].sum(), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(made[6:].sum(), torch.tensor(0.3, dtype=torch.float64))


def test_debiasing_makes_a_ramp_flat():
    scene = sight()

    class Ramp(FasterVLM):
        def scores(self, sight):
            return 0.36 ** (-sight.places.double() / (N - 1))

    flat = Debiased(Ramp(), last=0.36).scores(scene)
    torch.testing.assert_close(flat, torch.ones(N, dtype=torch.float64), atol=1e-6, rtol=0)
    for blind in (MMTok(), CATP(), ToDRE(spread="maxsum"), UniformGrid()):
        with pytest.raises(SpecError, match="ranks by no score of attention"):
            Debiased(blind)


def test_flowcut_never_closes_below_its_budget():
    flat = torch.full((20,), 1 / 20)
    peak = torch.zeros(20)
    peak[0] = 1
    assert closing(flat, 20, 4, 9) == 0
    assert closing(peak, 20, 4, 9) == round(16 / 3)
    assert closing(peak, 20, 4, 1) == 16
    assert closing(peak, 4, 4, 9) == closing(peak, 20, 4, 0) == 0


def test_flowcut_keeps_no_token_that_it_closed():
    """A padded view: of its four open tokens two are padding, and only the first half of it is in the prompt."""
    whole, half = sight(), torch.arange(N // 2)
    still = torch.zeros(N + 1, dtype=torch.bool)
    still[[0, 3, 6, 11, 14]] = True  # CLS stands first
    eye = replace(whole.eye, tokens=len(half), full=N, picked=half, open=still, scores=rand(N).sigmoid())
    scene = replace(some(whole, half.tolist()), eye=eye)
    assert FlowCut().choose(scene, 4).index.tolist() == [2, 5]
    assert FlowCut().choose(scene, 1).index.tolist() in ([2], [5])


def test_the_cosine_transform_keeps_what_is_flat():
    for size in (1, 2, 5, 8):
        torch.testing.assert_close(dct(size) @ dct(size).T, torch.eye(size, dtype=torch.float64))
        torch.testing.assert_close(resample(size, size), torch.eye(size, dtype=torch.float64))
        for fewer in range(1, size):
            torch.testing.assert_close(resample(size, fewer).sum(1), torch.ones(fewer, dtype=torch.float64))
    scene = sight(states=torch.ones(N, 12, dtype=torch.float64) * rand(12))
    choice = FourierVLM().choose(scene, 5)
    assert len(choice.index) == 4
    torch.testing.assert_close(choice.states, scene.states[:4])


def test_hiprune_keeps_the_neighbours_of_its_anchors():
    choice = HiPrune(alpha=1.0).choose(sight(planted=5), 5)
    assert choice.index.tolist() == [1, 4, 5, 6, 9]
    left = some(sight(planted=5), [1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 15])  # 6 is gone, a fourth is the register's
    assert {1, 4, 5, 9} < set(left.places[HiPrune(alpha=1.0).choose(left, 5).index].tolist())


def test_hiprune_without_room_for_an_anchor_is_fopru():
    anchors = {n: round(n * HiPrune().alpha / 5) for n in (25, 26, 64, 128, 192)}
    assert anchors == {25: 0, 26: 1, 64: 1, 128: 3, 192: 4}
    scene = sight()
    assert torch.equal(HiPrune().choose(scene, 5).index, FoPru().choose(scene, 5).index)


def some(scene, places):
    """The sight when only these places of it are left."""
    places = torch.tensor(places)
    return replace(scene, places=places, tokens=scene.tokens[places], states=scene.states[places])


def test_a_grid_among_what_is_left_takes_the_nearest():
    left = some(sight(), [0, 1, 2, 4, 7, 9, 10, 11, 12, 14])  # of the lattice 5, 7, 13, 15 only 7 is left
    found = left.places[UniformGrid().choose(left, 4).index].tolist()
    assert found == [1, 7, 9, 11]


def test_late_dropping_waits_until_nobody_looks():
    scene = sight(3)
    assert isinstance(ToDRELate(), Conditional)
    assert ToDRELate(tau=1.1).due((scene,))
    assert not ToDRELate(tau=0.0).due((scene,))


def test_a_grid_is_even_and_meets_its_budget():
    for rows, columns in ((12, 12), (3, 8), (1, 7)):
        for count in range(1, rows * columns):
            found = lattice(rows, columns, count)
            assert len(found.unique()) == count
            assert 0 <= int(found[0]) <= int(found[-1]) < rows * columns
    assert lattice(12, 12, 36).tolist() == [r * 12 + c for r in range(1, 12, 2) for c in range(1, 12, 2)]


def test_a_budget_is_shared_in_whole_numbers():
    assert fair(10, [5.0, 2.5, 2.5], [16] * 3) == (5, 3, 2)
    assert fair(10, [0.0, 20.0], [16, 4]) == (6, 4)
    assert fair(3, [2.0, 2.0], [16, 16]) in ((1, 2), (2, 1))
    assert together([torch.tensor([0.9, 0.1]), torch.tensor([0.8, 0.7, 0.2])], 3) == (1, 2)
    assert tiles(4, 4, 4).reshape(4, 4)[::3, ::3].tolist() == [[0, 1], [2, 3]]
    overview = torch.arange(16.0).reshape(4, 4)
    torch.testing.assert_close(window(overview, 4, 3, (2, 2)), overview[2:, 2:])
