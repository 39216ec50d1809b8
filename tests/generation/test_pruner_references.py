"""Every pruner against its equation, written out term by term in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from sights import (
    EYES,
    HEADS,
    SIDE,
    N,
    attention,
    best,
    cls,
    cosines,
    prompt,
    received,
    softmax,
    stretched,
    text,
)

from morgana.generation.pruning.aim_merge import AIMMerge
from morgana.generation.pruning.catp import CATP
from morgana.generation.pruning.catp_late import CATPLate
from morgana.generation.pruning.debiased import Debiased
from morgana.generation.pruning.fastervlm import FasterVLM
from morgana.generation.pruning.fastv import FastV
from morgana.generation.pruning.flowcut import FlowCut
from morgana.generation.pruning.fopru import FoPru
from morgana.generation.pruning.fourier import FourierVLM
from morgana.generation.pruning.globalcom import GlobalCom
from morgana.generation.pruning.hiprune import HiPrune
from morgana.generation.pruning.hired import HiRED
from morgana.generation.pruning.idpruner import IDPruner
from morgana.generation.pruning.mmtok import MMTok
from morgana.generation.pruning.recoverable import Recoverable
from morgana.generation.pruning.seats import SEATS
from morgana.generation.pruning.todre import ToDRE
from morgana.generation.pruning.todre_late import ToDRELate
from morgana.generation.pruning.transprune import TransPrune
from morgana.generation.pruning.turbo import Turbo
from morgana.generation.pruning.vflowopt import VFlowOpt
from morgana.generation.pruning.visiondrop import VisionDrop
from morgana.generation.pruning.vmtc import VMTC
from morgana.generation.pruning.vtc_cls import VTCCLS
from morgana.generation.pruning.zeroth_order import ZerothOrder
from morgana.seeds import derive

K = 6


def close(found, wanted):
    torch.testing.assert_close(found, torch.as_tensor(np.asarray(wanted)), atol=1e-12, rtol=1e-9)


def states(sight):
    return sight.states.numpy()


def chosen(pruner, sight, count=K):
    return pruner.choose(sight, count).index.tolist()


def greedy(count, gain, first=None):
    """Places in the order in which they are taken: always the largest gain(place, those taken)."""
    taken = [] if first is None else [first]
    while len(taken) < count:
        rest = [i for i in range(N) if i not in taken]
        taken.append(max(rest, key=lambda i: (gain(i, taken), -i)))
    return sorted(taken)


@pytest.fixture(params=[0, 1])
def sight(request):
    return prompt(seed=request.param)[0]


@pytest.fixture(params=[0, 1])
def late(request):
    return prompt(layer=2, seed=request.param)[0]


def test_attention_of_cls_alone_and_summed_over_layers(sight):
    close(FasterVLM().scores(sight), cls(sight))
    assert chosen(FasterVLM(), sight) == best(cls(sight), K)
    summed = cls(sight, 2)  # of 4 layers, from half the depth to the last but one
    close(VTCCLS().scores(sight), summed)
    close(VTCCLS(first=0.0).scores(sight), sum(cls(sight, i) for i in (0, 1, 2)))
    assert chosen(VTCCLS(first=0.0), sight) == best(sum(cls(sight, i) for i in (0, 1, 2)), K)


def test_focal_pruning_takes_the_best_tokens_or_the_best_rows(sight):
    score = received(sight)
    close(FoPru().scores(sight), score)
    assert chosen(FoPru(), sight) == best(score, K)
    row = [sum(score[SIDE * r : SIDE * (r + 1)]) for r in range(SIDE)]
    order = best(row, 1) + best([s if r != best(row, 1)[0] else -1 for r, s in enumerate(row)], 1)
    whole = list(range(SIDE * order[0], SIDE * (order[0] + 1)))
    next_row = range(SIDE * order[1], SIDE * (order[1] + 1))
    rest = sorted(next_row, key=lambda i: -score[i])[: K - SIDE]
    assert chosen(FoPru(strategy="row"), sight) == sorted(whole + rest)


def test_anchors_bring_their_neighbours_and_registers_the_rest(sight):
    middle, last = received(sight, int(0.375 * EYES)), received(sight)
    (anchor,) = best(middle, round(K * 1.0 / 5))
    r, c = divmod(anchor, SIDE)
    near = [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
    first = [anchor, *(SIDE * a + b for a, b in near if 0 <= a < SIDE and 0 <= b < SIDE)]
    more = [i for i in sorted(range(N), key=lambda i: -last[i]) if i not in first][: K - len(first)]
    assert chosen(HiPrune(alpha=1.0), sight) == sorted(first + more)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.8])
def test_early_attention_shares_the_budget_and_late_attention_spends_it(alpha):
    sights = prompt(images=5)
    counts = (K,) * 5
    got = HiRED(alpha=alpha).share(sights, counts)
    early = cls(sights[0], 0)
    votes = [0, 0, 0, 0]
    for place in best(early, round((1 - alpha) * N)):
        votes[2 * (place // SIDE // 2) + place % SIDE // 2] += 1
    total = sum(counts)
    first = min(N, round(alpha * total))
    assert sum(got) == total
    assert got[0] == first
    for share, vote in zip(got[1:], votes, strict=True):
        assert abs(share - (total - first) * vote / sum(votes)) < 1 or share == N or max(got[1:]) == N
    for one in sights:
        assert chosen(HiRED(alpha=alpha), one) == best(cls(one), K)


@pytest.mark.parametrize("heat", [0.1, 10.0])
def test_the_overview_says_how_much_of_each_tile_stays_and_what(heat):
    sights = prompt(images=5)
    overview = cls(sights[0]).reshape(SIDE, SIDE)
    mass = [overview[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].sum() for i in (0, 1) for j in (0, 1)]
    weight = softmax([m / heat for m in mass])
    wanted = [N * 0.375 * (1 + w - sum(weight) / 4) for w in weight]
    got = GlobalCom(heat=heat).share(sights, (K,) * 5)
    assert sum(got) == 5 * K
    assert got[0] == K
    assert all(abs(n - want) < 1 for n, want in zip(got[1:], wanted, strict=True))
    for number, alpha in itertools.product((1, 4), (0.5, 0.9)):
        i, j = divmod(number - 1, 2)
        seen = enlarged(overview[2 * i : 2 * i + 2, 2 * j : 2 * j + 2])
        own = cls(sights[number])
        score = alpha * own / np.sqrt(own @ own) + (1 - alpha) * seen / np.sqrt(seen @ seen)
        close(GlobalCom(alpha=alpha).scores(sights[number]), score)
    assert chosen(GlobalCom(), sights[0]) == best(cls(sights[0]), K)


def enlarged(cut):
    """2 x 2 to 4 x 4, bilinear, corners not aligned."""
    at = [max(0.0, min(1.0, (i + 0.5) / 2 - 0.5)) for i in range(SIDE)]
    across = np.array([[(1 - x) * row[0] + x * row[1] for x in at] for row in cut])
    return np.array([(1 - y) * across[0] + y * across[1] for y in at]).flatten()


def test_coverage_of_words_and_of_the_image_is_greedy(sight):
    asked = sight.row[sight.question].numpy()
    words = np.array([softmax([c / 0.02 for c in row]) for row in cosines(asked, states(sight))]) / len(asked)
    image = np.array([softmax([c / 0.2 for c in row]) for row in cosines(states(sight))]) / N
    cover = np.concatenate([words, 0.5 * image])
    close(MMTok().coverage(sight), cover)

    def gain(i, taken):
        known = cover[:, taken].max(1) if taken else np.zeros(len(cover))
        return sum(max(0.0, cover[r, i] - known[r]) for r in range(len(cover)))

    assert chosen(MMTok(), sight) == greedy(K, gain)


def test_relevance_and_diversity(sight):
    like = cosines(states(sight))
    importance = stretched(received(sight))
    start = int(np.argmax(importance))
    assert chosen(IDPruner(balance=0.3), sight) == greedy(
        K, lambda i, taken: 0.3 * importance[i] - 0.7 * max(like[i, j] for j in taken), start
    )
    least = int(np.argmin(like.mean(1)))
    assert chosen(ToDRE(), sight) == greedy(K, lambda i, taken: -max(like[i, j] for j in taken), least)
    pivot = int(np.argmax(cls(sight)))
    assert chosen(ToDRE(spread="maxsum"), sight) == greedy(K, lambda i, taken: -sum(like[i, j] for j in taken), pivot)


def test_facility_location_with_a_lean_to_the_text(sight):
    like = (1 + cosines(states(sight))) / 2
    mean = sight.row[sight.question].numpy().mean(0)
    near = (1 + cosines(states(sight), [mean])[:, 0]) / 2
    close(CATP().scores(sight), near)

    def value(taken):
        return sum(max(like[i, j] for j in taken) for i in range(N)) + 0.7 * sum(near[j] for j in taken)

    assert chosen(CATP(), sight) == greedy(K, lambda i, taken: value([*taken, i]))


def test_recoverable_keeps_recovers_and_merges(sight):
    seen = cls(sight)
    first = best(seen, 3)
    asked = cosines(states(sight), sight.row[sight.question].numpy()).max(1)
    second = [i for i in sorted(range(N), key=lambda i: -asked[i]) if i not in first][:2]
    kept = sorted(first + second)
    left = [i for i in range(N) if i not in kept]
    choice = Recoverable(seen=0.5, recovered=0.3).choose(sight, K)
    assert len(choice.index) == K
    (place,) = set(choice.index.tolist()) - set(kept)
    assert place == max(left, key=lambda i: seen[i])
    mean = sum(seen[i] * states(sight)[i] for i in left) / sum(seen[i] for i in left)
    for i, made in zip(choice.index.tolist(), choice.states, strict=True):
        close(made, mean if i == place else states(sight)[i])


def test_density_peaks_are_dense_and_far_from_anything_denser(sight):
    x = states(sight)
    choice = Recoverable(seen=0.0, recovered=0.0).choose(sight, 3)
    distance = np.array([[np.sqrt((a - b) @ (a - b)) / np.sqrt(x.shape[1]) for b in x] for a in x])
    density = np.exp([-np.mean(np.square(sorted(row)[:5])) for row in distance])
    gap = [min((distance[i, j] for j in range(N) if density[j] > density[i]), default=distance.max()) for i in range(N)]
    centres = best([g * d for g, d in zip(gap, density, strict=True)], 3)
    cluster = [int(np.argmin([distance[i, c] for c in centres])) for i in range(N)]
    weight = cls(sight)
    for g in range(3):
        members = [i for i in range(N) if cluster[i] == g]
        head = max(members, key=lambda i: weight[i])
        mean = sum(weight[i] * x[i] for i in members) / sum(weight[i] for i in members)
        close(choice.states[choice.index.tolist().index(head)], mean)


def test_vflowopt_keeps_what_is_attended_to_and_rich_and_recycles_the_rest(sight):
    entropy = [-sum(p * math.log(p) for p in softmax(row)) for row in states(sight)]
    score = stretched(received(sight)) + 0.5 * stretched(np.array(entropy))
    torch.testing.assert_close(VFlowOpt().scores(sight), torch.as_tensor(score), atol=1e-5, rtol=1e-5)
    choice = VFlowOpt(recycled=0.34).choose(sight, K)  # 2 of 6
    kept = best(score, 4)
    left = [i for i in range(N) if i not in kept]
    wanted = {i: states(sight)[i] for i in kept}
    for half in (left[:6], left[6:]):
        head = max(half, key=lambda i: score[i])
        wanted[head] = sum(score[i] * states(sight)[i] for i in half) / sum(score[i] for i in half)
    assert choice.index.tolist() == sorted(wanted)
    for i, made in zip(choice.index.tolist(), choice.states, strict=True):
        torch.testing.assert_close(made, torch.as_tensor(wanted[i]), atol=1e-5, rtol=1e-5)


def test_sensitivity_of_the_projector_by_differences_then_none_twice(sight):
    given = sight.eye.projected
    lot = torch.Generator().manual_seed(derive(0, "directions", *given.shape))
    h = 0.01 * float(given.square().mean().sqrt())
    moved = np.zeros(N)
    for _ in range(6):
        way = torch.randn(given.shape, generator=lot).double()
        way = way / way.norm(dim=-1, keepdim=True)
        for i in range(N):
            up, down = (sight.eye.project(given[i] + sign * h * way[i]) for sign in (1, -1))
            moved[i] += float((up - down).norm()) / (2 * h) / 6
    torch.testing.assert_close(ZerothOrder().scores(sight).double(), torch.as_tensor(moved), atol=1e-4, rtol=1e-4)
    value, like = stretched(moved), cosines(states(sight))
    wanted = greedy(K, lambda i, taken: value[i] * (1 - max(like[i, j] for j in taken)), int(np.argmax(value)))
    assert chosen(ZerothOrder(), sight) == wanted


def test_low_frequencies_are_what_a_cosine_sum_gives(sight):
    choice = FourierVLM().choose(sight, 4)
    grid = states(sight).reshape(SIDE, SIDE, -1)

    def wave(size, u, x):
        return math.sqrt((1 if u == 0 else 2) / size) * math.cos(math.pi / size * (x + 0.5) * u)

    made = []
    for y, x in itertools.product(range(2), range(2)):
        value = 0
        for u, v, r, c in itertools.product(range(2), range(2), range(SIDE), range(SIDE)):
            value = value + wave(2, u, y) * wave(2, v, x) * wave(SIDE, u, r) * wave(SIDE, v, c) * grid[r, c] * 2 / SIDE
        made.append(value)
    close(choice.states, made)


def test_merging_pairs_even_tokens_with_their_likeliest_odd_ones(sight):
    for pruner, cost in ((AIMMerge(), np.zeros(N)), (Turbo(alpha=0.5), 0.5 * stretched(cls(sight)))):
        like = cosines(states(sight))
        match = {i: max(range(1, N, 2), key=lambda j, i=i: like[i, j]) for i in range(0, N, 2)}
        order = sorted(match, key=lambda i: -(like[i, match[i]] - cost[i]))
        goes = order[:5]
        choice = pruner.choose(sight, N - 5)
        assert choice.index.tolist() == [i for i in range(N) if i not in goes]
        for i, made in zip(choice.index.tolist(), choice.states, strict=True):
            members = [i, *(j for j in goes if match[j] == i)]
            close(made, sum(states(sight)[j] for j in members) / len(members))


def test_the_foreground_stays_and_the_rest_is_clustered_by_cosine(sight):
    score = cls(sight)
    kept = best(score, 3)
    left = [i for i in range(N) if i not in kept]
    unit = [states(sight)[i] / np.sqrt(states(sight)[i] @ states(sight)[i]) for i in left]
    like = cosines(unit)
    start = [int(np.argmax(like.sum(1)))]
    while len(start) < 3:
        rest = [i for i in range(len(left)) if i not in start]
        start.append(max(rest, key=lambda i: -max(like[i, j] for j in start)))
    centre = [unit[i] for i in sorted(start)]
    for _ in range(10):
        cluster = [int(np.argmax([u @ c for c in centre])) for u in unit]
        sums = [
            sum((u for u, g in zip(unit, cluster, strict=True) if g == k), np.zeros(len(unit[0]))) for k in range(3)
        ]
        centre = [s / np.sqrt(s @ s) if s @ s > 0 else c for s, c in zip(sums, centre, strict=True)]
    cluster = [int(np.argmax([u @ c for c in centre])) for u in unit]
    wanted = {i: states(sight)[i] for i in kept}
    for k in set(cluster):
        members = [i for i, g in zip(left, cluster, strict=True) if g == k]
        head = max(members, key=lambda i: score[i])
        wanted[head] = sum(score[i] * states(sight)[i] for i in members) / sum(score[i] for i in members)
    choice = VMTC().choose(sight, K)
    assert choice.index.tolist() == sorted(wanted)
    for i, made in zip(choice.index.tolist(), choice.states, strict=True):
        close(made, wanted[i])


def test_flowcut_scores_by_attention_values_and_length_and_closes_the_worst(sight):
    pruner, left = FlowCut(keep=4), 3
    found = sight.eye.taken[0]
    everyone = torch.ones(N + 1, dtype=torch.bool)
    still, score = pruner.narrow(0, found, everyone, None, EYES)
    weight = attention(found)[0, 1:]
    weight = weight / weight.sum()
    value = found.value[0].transpose(0, 1).flatten(1).numpy()
    alike = softmax(list(cosines(value[1:], value[:1])[:, 0]))
    wanted = (weight + alike) * np.abs(value[1:]).sum(1)
    wanted = wanted / wanted.sum()
    entropy = -sum(w * math.log(w) for w in weight) / math.log(N)
    close_n = round((N - 4) / math.sqrt(left) * (1 - entropy**2))
    gone = best(-wanted, close_n)
    assert still.tolist() == [True, *(i not in gone for i in range(N))]
    torch.testing.assert_close(score[still[1:]].double(), torch.as_tensor(wanted)[still[1:]], atol=1e-6, rtol=1e-5)
    again, second = pruner.narrow(2, sight.eye.taken[2], still, score, EYES)
    assert (again <= still).all()
    assert (second[~still[1:]] == 0).all()


def test_the_last_tokens_attention_inside_the_model(late):
    close(FastV().scores(late), text(late, 1)[-1, late.tokens])
    w = [0.36 ** (i / (N - 1)) for i in range(N)]
    torch.testing.assert_close(
        Debiased(FastV()).scores(late).double(),
        torch.as_tensor(np.array(w) * text(late, 1)[-1, late.tokens]),
        atol=1e-7,
        rtol=1e-6,
    )


def test_attention_that_rises_and_states_that_fit(late):
    risen = np.maximum(text(late, 1) - text(late, 0), 0)[-1, late.tokens]
    mean = late.row[late.question].numpy().mean(0)
    near = (1 + cosines(states(late), [mean])[:, 0]) / 2
    close(CATPLate().scores(late), risen / risen.sum() + 0.6 * near)


def test_transitions_of_every_watched_layer_and_the_questions_attention(late):
    change = np.zeros(N)
    for parts in late.moves.values():
        for given, made in parts:
            a, b = given[late.tokens].double().numpy(), made[late.tokens].double().numpy()
            turn = [1 - x @ y / np.sqrt(x @ x) / np.sqrt(y @ y) for x, y in zip(a, b, strict=True)]
            change += softmax(turn) * [np.sqrt(y @ y) / np.sqrt(x @ x) for x, y in zip(a, b, strict=True)]
    asked = text(late, 1)[late.question][:, late.tokens].mean(0)
    wanted = torch.as_tensor(change / change.sum() + asked / asked.sum())
    torch.testing.assert_close(TransPrune().scores(late).double(), wanted, atol=1e-6, rtol=1e-5)


def test_visual_tokens_judge_each_other_and_the_rest_joins_by_keys(late):
    score = text(late, 1)[late.tokens][:, late.tokens].mean(0)
    close(VisionDrop().scores(late), score)
    choice = VisionDrop(contextual=0.34).choose(late, K)  # 2 of 6
    kept = best(score, 4)
    left = [i for i in range(N) if i not in kept]
    targets = [left[(2 * i + 1) * len(left) // 4] for i in range(2)]
    key = late.operands[1].taken.key[0].transpose(0, 1).flatten(1).numpy()[late.tokens]
    like = cosines(key)
    wanted = {i: states(late)[i] for i in kept}
    groups = {t: [t] for t in targets}
    for i in left:
        if i not in targets:
            groups[max(targets, key=lambda t, i=i: like[i, t])].append(i)
    wanted |= {t: sum(states(late)[i] for i in members) / len(members) for t, members in groups.items()}
    assert choice.index.tolist() == sorted(wanted)
    for i, made in zip(choice.index.tolist(), choice.states, strict=True):
        close(made, wanted[i])


def test_no_query_of_cls_judges_in_the_vision_tower(sight):
    score = attention(sight.eye.taken[EYES - 2])[1:].mean(0)[1:]
    close(VisionDrop().scores(sight), score)
    assert chosen(VisionDrop(contextual=0.0), sight) == best(score, K)


def test_seats_is_diverse_before_the_model_and_asked_for_inside(sight, late):
    value, like = stretched(received(sight)), cosines(states(sight))
    wanted = greedy(
        K, lambda i, taken: value[i] * (1 - sum(like[i, j] for j in taken) / len(taken)), int(np.argmax(value))
    )
    assert chosen(SEATS(), sight) == wanted
    close(SEATS().scores(late), text(late, 1)[late.question][:, late.tokens].mean(0))


def test_late_dropping_compares_both_directions(late):
    seen = text(late, 1)
    behind = [t for t in late.text.tolist() if t > int(late.visual[0])]
    read = np.mean([seen[t][late.visual].sum() for t in behind])
    back = np.mean([seen[v][late.text].sum() for v in late.visual.tolist()])
    most = max(read, back)
    assert ToDRELate(tau=most + 1e-6).due((late,))
    assert not ToDRELate(tau=most - 1e-6).due((late,))


def test_grouped_keys_are_read_by_their_own_queries():
    """Two heads of queries may share one of keys, as in most language models."""
    from morgana.generation.sight import products
    from morgana.generation.watching import Taken

    lot = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, h, 5, 3, generator=lot, dtype=torch.float64) for h in (2 * HEADS, HEADS))
    made = products(Taken(query, key, key, 0.5), torch.arange(5))
    for head in range(2 * HEADS):
        torch.testing.assert_close(made[head], 0.5 * query[0, head] @ key[0, head // 2].T)
