"""Each method against its equation, written again in plain Python on float64 rows."""

import math
from dataclasses import dataclass, fields, replace

import pytest
import torch

from morgana.generation._parts import shared
from morgana.generation._products import masks
from morgana.generation.interventions.aif import AIF
from morgana.generation.interventions.bair import BAIR
from morgana.generation.interventions.cmai import CMAI, Gazes
from morgana.generation.interventions.contrastive import ClinicalContrast, VisualContrast, noised, plausible
from morgana.generation.interventions.debiased_attention import DebiasedAttention, padded
from morgana.generation.interventions.dropping import DropHeads, DropLayers
from morgana.generation.interventions.flexac import FlexAC
from morgana.generation.interventions.gift import GIFT
from morgana.generation.interventions.image_masks import ModalityMutual, NAAViT, NeighbourAware
from morgana.generation.interventions.mad_rag import MADRAG
from morgana.generation.interventions.position_scaling import PositionScaling
from morgana.generation.interventions.var import VAR
from morgana.generation.interventions.wrappers import InHeads, InLayers, Scaled
from morgana.generation.layout import Columns, Layout
from morgana.generation.needs import Layers, Needs
from morgana.generation.prompts import Spans
from morgana.generation.view import Reference, View
from morgana.types import SpecError

CPU, HEADS, N = torch.device("cpu"), 4, 30
SPANS = (  # ragged: padding, image, a document, the question; the answer is two tokens
    Spans(0, 28, N, ((3, 12),), ((14, 18),), (20, 25)),
    Spans(4, 28, N, ((6, 10),), ((13, 15),), (21, 24)),
)
LAYOUT = Layout(SPANS, CPU)
ROWS = torch.arange(12, N).expand(2, -1)


def visual(i):
    return list(range(*SPANS[i].image[0]))


@pytest.fixture
def scores():
    made = torch.randn(2, HEADS, ROWS.shape[1], N, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2
    made = made + masks(ROWS, None, 0, N, None)
    made[1, ..., :4] = -math.inf
    return made


def view(layer=1, rows=ROWS, **more):
    more.setdefault("keys", N)
    more.setdefault("mine", torch.ones_like(rows, dtype=torch.bool))
    return View(LAYOUT, layer, rows=rows, depth=4, heads=HEADS, **more)


def edited(part, weights, view):
    """Weights whose shares the part edits."""
    return shared(weights, part.needs.parts(view), lambda shares: part.edit(shares, view))


def each(scores):
    for i in range(2):
        for h in range(HEADS):
            for r in range(scores.shape[2]):
                yield i, h, r, [math.exp(float(x)) for x in scores[i, h, r].log_softmax(-1)]


def close(made, wanted):
    near(made.softmax(-1), wanted)


def near(made, wanted):
    torch.testing.assert_close(made, torch.tensor(wanted, dtype=torch.float64), atol=1e-9, rtol=1e-9)


def test_mad_rag_averages_with_the_pass_without_documents(scores):
    last = scores[:, :, -3:-2]
    bare = Layout(tuple(Spans(2 - i * 2, 22, 22, ((4, 13 - 5 * i),), (), (15, 20 - 2 * i)) for i in range(2)), CPU)
    theirs = torch.randn(2, HEADS, 1, 22, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    made = MADRAG().edit(last, view(reference=Reference(scores={1: theirs}, layout=bare)))
    for i, h, r, row in each(last):
        other = theirs[i, h, r].softmax(-1).tolist()
        wanted = list(row)
        for mine, ref in ((SPANS[i].image[0], bare.spans[i].image[0]), (SPANS[i].question, bare.spans[i].question)):
            for a, b in zip(range(*mine), range(*ref), strict=True):
                wanted[a] = (row[a] + other[b]) / 2
        for t in range(*SPANS[i].documents[0]):
            wanted[t] /= 2
        close(made[i, h, r], [x / sum(wanted) for x in wanted])
    with pytest.raises(SpecError, match="calibration pass without documents"):
        MADRAG().edit(last, view())
    with pytest.raises(SpecError, match=r"visual tokens, its reference"):
        MADRAG().edit(last, view(reference=Reference(scores={1: theirs}, layout=Layout(bare.spans[::-1], CPU))))


def test_mad_rag_reads_its_reference_anew_for_other_columns(scores):
    """What it keeps is of one layout, and of layers whose prompts a pruner has left as long."""
    last, memory = scores[:, :, -3:-2], {}
    bare = Layout(tuple(Spans(2 - i * 2, 22, 22, ((4, 13 - 5 * i),), (), (15, 20 - 2 * i)) for i in range(2)), CPU)
    draw = torch.Generator().manual_seed(3)
    theirs = {
        n: torch.randn(2, HEADS, 1, w, dtype=torch.float64, generator=draw) for n, w in ((0, 9), (1, 22), (2, 22))
    }
    reference = Reference(scores=theirs, layout=bare)
    turned = Reference(scores=theirs, layout=Layout((bare.spans[0], replace(bare.spans[1], image=((5, 9),))), CPU))
    shifted = Layout(tuple(replace(x, image=tuple((a + 1, b + 1) for a, b in x.image)) for x in SPANS), CPU)
    for layer, layout, ours in ((1, LAYOUT, reference), (2, LAYOUT, reference), (1, shifted, turned)):
        now = replace(view(layer, reference=ours, memory=memory), layout=layout)
        assert torch.equal(MADRAG().edit(last, now), MADRAG().edit(last, replace(now, memory={})))


@pytest.mark.parametrize("part", [VAR(tau=2.0), VAR(keep=0.1, tau=1.8, rho=0.3, mass=0.1, dims=(1, 5))], ids=repr)
def test_var_moves_the_attention_of_sinks_to_the_rest_of_the_image(scores, part):
    hidden = torch.randn(2, N, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    weights = scores.softmax(-1)
    made = edited(part, weights, view(hidden=hidden))
    acted = 0
    for i, h, r, row in each(scores):
        states = [[float(x) for x in t] for t in hidden[i]]
        norm = [[abs(x) / math.sqrt(sum(y * y for y in t) / len(t) + 1e-6) for x in t] for t in states]
        start = SPANS[i].start
        dims = part.dims or sorted(range(8), key=lambda d: -norm[start][d])[:2]
        sink = [max(t[d] for d in dims) > part.tau for t in norm]
        seen = sum(row[t] for t in visual(i))
        wasted = sum(row[t] for t in visual(i) if sink[t])
        wanted = list(row)
        if seen >= part.mass and wasted <= part.rho * seen and seen > wasted:
            freed = (1 - part.keep) * sum(w for w, s in zip(row, sink, strict=True) if s)
            for t in range(N):
                if sink[t]:
                    wanted[t] = part.keep * row[t]
                elif t in visual(i):
                    wanted[t] = row[t] + freed * row[t] / (seen - wasted)
            acted += freed > 0
        else:
            assert torch.equal(made[i, h, r], weights[i, h, r])
        assert abs(sum(wanted) - 1) < 1e-9
        near(made[i, h, r], wanted)
    assert 0 < acted < scores[..., 0].numel()


def test_var_takes_from_a_planted_sink_and_gives_to_a_planted_patch():
    scores = torch.zeros(2, HEADS, 1, N)
    scores[..., 7] = 3.0  # a patch
    hidden = torch.ones(2, N, 64)
    hidden[:, 0, 0] = hidden[:, 4, 0] = 1000.0  # the first tokens, and
    hidden[:, 9, 0] = 1000.0  # one in the image
    before = scores.softmax(-1)
    made = edited(VAR(tau=7.0), before, view(rows=torch.full((2, 1), 28), hidden=hidden))
    assert (made[..., 9] < before[..., 9]).all()
    assert (made[..., 7] > before[..., 7]).all()


def test_gift_looks_where_the_gaze_moved_while_reading(scores):
    part, memory = GIFT(alpha=2.0, beta=0.7, source=0, first=1, stop=None), {}
    assert part.edit(scores, view(0, memory=memory)) is scores
    made = part.edit(scores, view(1, memory=memory))
    for i in range(2):
        cells, moved = visual(i), {}
        weights = scores[i].softmax(-1).tolist()
        first, stop = SPANS[i].question
        for h in range(HEADS):
            moved[h] = [
                sum(max(weights[h][t - 12][j] - weights[h][t - 13][j], 0.0) for t in range(first, stop)) for j in cells
            ]
        chosen = sorted(range(HEADS), key=lambda h: -sum(moved[h]))[:2]
        mean = [sum(moved[h][j] for h in chosen) / 2 for j in range(len(cells))]
        middle = sum(mean) / len(mean)
        spread = math.sqrt(sum((x - middle) ** 2 for x in mean) / len(mean))
        mean = [min(max(x, middle - 3 * spread), middle + 3 * spread) for x in mean]
        salient = [(x - min(mean)) / (max(mean) - min(mean)) for x in mean]
        for r in range(scores.shape[2]):
            seen = [sum(weights[h][r][t] for t in cells) for h in range(HEADS)]
            eager = sorted(range(HEADS), key=lambda h, s=seen: -s[h])[:2]
            for h in range(HEADS):
                if 12 + r < 27 or h not in eager:
                    assert torch.equal(made[i, h, r], scores[i, h, r])
                    continue
                wanted = list(weights[h][r])
                for t, s in zip(cells, salient, strict=True):
                    wanted[t] *= math.exp(2.0 * s)
                gain = sum(wanted[t] for t in cells) / seen[h]
                for t in range(first, stop):
                    wanted[t] *= 0.7 * gain
                close(made[i, h, r], [x / sum(wanted) for x in wanted])


def test_gift_reads_the_same_in_pieces(scores):
    part, whole, cut = GIFT(source=0, first=1, stop=None), {}, {}
    part.edit(scores, view(0, memory=whole))
    for start in range(0, scores.shape[2], 5):
        part.edit(scores[:, :, start : start + 5], view(0, ROWS[:, start : start + 5], memory=cut))
    torch.testing.assert_close(whole["moved"], cut["moved"])


@pytest.mark.parametrize("ratio", [None, 0.5])
def test_aif_hides_the_tokens_that_all_layers_see_alike(scores, ratio):
    part, memory = AIF(ratio), {}
    layers = [scores, scores.flip(1) * 0.5, scores.roll(1, 2) * 2]
    layers = [torch.where(scores.isneginf(), scores, s.nan_to_num(neginf=0.0)) for s in layers]
    for layer, found in enumerate(layers):
        assert part.edit(found, view(layer, memory=memory, calibrating=True)) is found
    made = part.edit(torch.zeros(2, 1, ROWS.shape[1], N), view(memory=memory))
    for i in range(2):
        cells = visual(i)
        seen = [x[i].softmax(-1).mean(0)[:, cells] for x in layers]  # (R, V)
        entropies = []
        for j in range(len(cells)):
            d = [float(x[:, j].max()) for x in seen]
            entropies.append(-sum(x / sum(d) * math.log(x / sum(d)) for x in d))
        order = sorted(range(len(cells)), key=lambda j: entropies[j])
        total = [float(sum(x[:, j].sum() for x in seen)) for j in range(len(cells))]

        def flat(kept, total=total):
            p = [total[j] / sum(total[k] for k in kept) for j in kept]
            return -sum(x * math.log(x) for x in p) / math.log(max(2, len(kept)))

        def kept(ratio, order=order):
            return order[: len(order) - math.floor(ratio * len(order))]

        start = flat(order)
        best = ratio or max((r / 10 for r in range(1, 10)), key=lambda r: abs(flat(kept(r)) - start))
        wanted = {cells[j] for j in order} - {cells[j] for j in kept(best)}
        hidden = {t for t in range(N) if bool(made[i, 0, 0, t].isneginf())}
        assert hidden == wanted
        assert hidden


def test_gazes_move_where_there_is_less_room_than_there_was():
    """A room made in inference mode cannot be written to outside; it is made anew, as wide as is needed then."""
    with torch.inference_mode():
        room = Gazes(torch.arange(24.0).view(1, 12, 2), 3, slice(0, 3))
    fresh = torch.full((1, 1, 2), -1.0)
    room.add(fresh, view(rows=torch.full((1, 1), N - 1)))
    assert room.room[0, :4].tolist() == [[0, 1], [2, 3], [4, 5], [-1, -1]]
    assert room.count == 4
    assert room.scattered.tolist() == [[0, 1, 2, N - 1]]


def test_gazes_of_runs_that_do_not_meet_are_scattered():
    room, fresh = Gazes(torch.empty(2, 0, 2)), torch.zeros(2, 3, 2)
    for start, run, found in ((14, slice(14, 17), None), (17, slice(17, 20), None), (21, slice(21, 24), True)):
        rows = torch.arange(start, start + 3).expand(2, -1)
        room.add(fresh, view(rows=rows, run=run))
        assert (room.run is None) == (room.scattered is not None) == bool(found)
    assert room.tokens(rows).tolist() == [[14, 15, 16, 17, 18, 19, 21, 22, 23]] * 2


def test_cmai_of_a_head_that_sees_nothing_else_is_finite():
    """All but 1e-40 of head 0 is on a token that the three others do not look at; 1 / 1e-40 is no number."""
    weights = torch.full((2, HEADS, 1, N), 1e-41)
    weights[:, 0, :, 9] = 1.0
    weights[:, 1:, :, 8], weights[:, 1:, :, N - 1] = 0.99, 0.01
    made = CMAI(0.9).edit(weights, view(rows=torch.full((2, 1), N - 1)))
    assert made.isfinite().all()
    assert (made[:, 0, :, 9] == 0).all()
    assert (made[:, 1:, :, 8] > 0.9).all()


def test_scaling_up_leaves_alone_what_is_not_edited():
    weights = (3 * torch.randn(2, 4, 5, N)).softmax(-1)

    @dataclass
    class Half:
        needs = CMAI().needs

        def edit(self, x, view):
            made = x.clone()
            made[:, 1, :, 0] *= 0.5
            return made

    made = Scaled(Half(), 1.5).edit(weights, view())
    assert torch.equal(made[:, [0, 2, 3]], weights[:, [0, 2, 3]])
    assert (made[:, 1] != weights[:, 1]).any(-1).all()
    torch.testing.assert_close(made.sum(-1), torch.ones(2, 4, 5))


def test_cmai_inhibits_what_the_text_it_refers_to_does_not_look_at(scores):
    weights = scores.softmax(-1)
    made = CMAI(0.4).edit(weights, view(memory={}))
    pieces, memory = [], {}
    for start in range(0, scores.shape[2], 7):
        rows = ROWS[:, start : start + 7]
        pieces.append(CMAI(0.4).edit(weights[:, :, start : start + 7], view(rows=rows, memory=memory)))
    assert torch.equal(torch.cat(pieces, 2), made)
    for i in range(2):
        weight = weights[i].mean(0)  # (R, N)
        cells = visual(i)
        for r in range(scores.shape[2]):
            through = weight[r, 12 : 12 + r + 1]
            focus = (through[:, None] * weight[: r + 1][:, cells]).sum(0) / through.sum()
            least = {cells[j] for j in focus.argsort()[: math.floor(0.4 * len(cells))].tolist()}
            for h in range(HEADS):
                wanted = [0.0 if t in least else float(weights[i, h, r, t]) for t in range(N)]
                near(made[i, h, r], [w / sum(wanted) for w in wanted])


def test_cmai_knows_no_later_gaze_where_a_prompt_sees_all_of_itself(scores):
    """PaliGemma's: the same in pieces as at once."""
    draw = torch.Generator().manual_seed(3)
    weights = torch.randn(scores.shape, dtype=torch.float64, generator=draw).softmax(-1)
    pieces, memory = [], {}
    for start in range(0, scores.shape[2], 7):
        rows = ROWS[:, start : start + 7]
        pieces.append(CMAI(0.4).edit(weights[:, :, start : start + 7], view(rows=rows, memory=memory)))
    made = CMAI(0.4).edit(weights, view(memory={}))
    assert torch.equal(torch.cat(pieces, 2), made)
    run, one = slice(12, 12 + scores.shape[2]), Layout(LAYOUT.spans[:1], CPU)
    alike = View(one, 0, rows=ROWS[:1], mine=torch.ones(1, ROWS.shape[1], dtype=torch.bool), run=run, heads=HEADS)
    torch.testing.assert_close(CMAI(0.4).edit(weights[:1], alike), made[:1])


@pytest.mark.parametrize(("quantile", "count", "hidden"), [(0.7, 90, 63), (0.29, 100, 29), (0.57, 100, 57)])
def test_cmai_hides_as_many_as_its_quantile_says(quantile, count, hidden):
    layout = Layout((Spans(0, count + 4, count + 4, ((0, count),), (), (count + 2, count + 4)),), CPU)
    rows = torch.arange(count, count + 4)[None]
    weights = torch.rand(1, 2, 4, count + 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    made = CMAI(quantile).edit(weights, View(layout, 0, rows=rows, mine=torch.ones_like(rows, dtype=torch.bool)))
    assert ((made == 0).sum(-1) == hidden).all()


def test_the_masks_of_image_rows_are_those_of_the_papers():
    rows = torch.arange(N).expand(2, -1)
    causal = masks(rows, None, 0, N, None)
    mutual = ModalityMutual().edit(causal, view(rows=rows))
    alone = NAAViT().edit(causal, view(rows=rows))
    near = NeighbourAware(1, width=3).edit(causal, view(rows=rows))
    for i in range(2):
        cells, (first, stop) = visual(i), SPANS[i].question
        for a in range(N):
            for b in range(N):
                seen = b <= a
                own = a in cells and b in cells
                assert bool(mutual[i, 0, a, b] == 0) == (seen or (a in cells and first <= b < stop))
                assert bool(alone[i, 0, a, b] == 0) == (seen and (not own or a == b))
                if own:
                    x, y = a - cells[0], b - cells[0]
                    close_by = abs(x % 3 - y % 3) <= 1 and abs(x // 3 - y // 3) <= 1
                    assert bool(near[i, 0, a, b] == 0) == (seen and close_by)
                else:
                    assert near[i, 0, a, b] == causal[i, 0, a, b]
    assert (mutual[..., 25:][..., :25, :] < 0).all(), "no row may see the answer or the template's tail"
    with pytest.raises(SpecError, match="no squares"):
        NeighbourAware().edit(
            causal[:1], View(Layout((Spans(0, 28, N, ((3, 11),), (), (20, 25)),), CPU), 0, rows=rows[:1])
        )


def test_heads_that_see_least_are_blinded(scores):
    weights = scores.softmax(-1)
    made = edited(DropHeads(0.5), weights, view())
    for i in range(2):
        mass = weights[i][..., visual(i)].sum(-1)  # (H, R)
        least = mass.argsort(0)[:2]
        for r in range(scores.shape[2]):
            for h in range(HEADS):
                if h not in least[:, r]:
                    assert torch.equal(made[i, h, r], weights[i, h, r])
                    continue
                wanted = [0.0 if t in visual(i) else float(weights[i, h, r, t]) for t in range(N)]
                near(made[i, h, r], [w / sum(wanted) for w in wanted])
    hidden = DropLayers(0.5).edit(torch.zeros(2, 1, 3, N), view())
    assert DropLayers(0.5).needs.layers.of(32) == range(16, 32)
    for i in range(2):
        assert hidden[i, 0, 0].isneginf().nonzero().flatten().tolist() == visual(i)


def test_debiasing_flattens_a_ramp_and_empties_the_padding():
    ramp = torch.zeros(2, 1, 1, N)
    for i in range(2):
        count = len(visual(i))
        ramp[i, 0, 0, visual(i)] = -math.log(0.36) * torch.arange(count) / (count - 1)
    made = DebiasedAttention().edit(ramp, view())
    torch.testing.assert_close(made, torch.zeros_like(made), atol=1e-6, rtol=0)
    wide = padded(LAYOUT, 3.0)[0, :9].view(3, 3)
    assert wide.tolist() == [[True] * 3, [False] * 3, [True] * 3]
    assert torch.equal(padded(LAYOUT, 1 / 3)[0, :9].view(3, 3), wide.T)
    assert not padded(LAYOUT, 1.0).any()
    hidden = DebiasedAttention(1.0, aspect=3.0).edit(torch.zeros(2, 1, 1, N), view())
    assert hidden[0, 0, 0].isneginf().nonzero().flatten().tolist() == [3, 4, 5, 9, 10, 11]


def test_contrast_is_the_published_combination_of_two_readings():
    logits, other = torch.randn(2, 2, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    seen = {}

    def again(changed):
        seen.update(changed)
        return other

    pixels = torch.rand(2, 3, 4, 4)
    made = VisualContrast(0.5, beta=0.2).edit(logits, view(inputs={"pixel_values": pixels}, again=again))
    p = logits.softmax(-1)
    kept = p >= 0.2 * p.amax(-1, keepdim=True)
    torch.testing.assert_close(made[kept], (1.5 * logits - 0.5 * other)[kept])
    assert (made[~kept] < -1e300).all()
    shift = seen["pixel_values"] - pixels * (seen["pixel_values"][0] - seen["pixel_values"][1])[0, 0, 0].div(
        (pixels[0] - pixels[1])[0, 0, 0]
    )
    torch.testing.assert_close(shift[0], shift[1], atol=1e-5, rtol=0)
    odds = ClinicalContrast((2, 5), (1.0, -9.0), alpha=2.0, beta=0.0, bound=3.0).edit(logits, view())
    torch.testing.assert_close((odds - logits)[0, 0], torch.tensor([0, 0, 2.0, 0, 0, -6.0, 0], dtype=torch.float64))
    assert torch.equal(plausible(logits, logits, 1.0).argmax(-1), logits.argmax(-1))
    torch.testing.assert_close(noised(pixels, 2, 0, 0), pixels, atol=0.1, rtol=0)


def test_wrappers_narrow_and_weaken(scores):
    drop = DropHeads(0.5)
    half = Scaled(DropLayers(0), 0.25).edit(scores, view()).softmax(-1)
    for i, h, r, row in each(scores):
        wanted = [w * (0.75 if t in visual(i) else 1) for t, w in enumerate(row)]
        near(half[i, h, r], [w / sum(wanted) for w in wanted])
    weights = scores.softmax(-1)
    full = edited(drop, weights, view())
    torch.testing.assert_close(edited(Scaled(drop, 0.25), weights, view()), 0.75 * weights + 0.25 * full)
    beyond = edited(Scaled(drop, 3.0), weights, view())
    assert (beyond >= 0).all()
    torch.testing.assert_close(beyond.sum(-1), torch.ones_like(beyond[..., 0]))
    assert edited(Scaled(drop, 0.0), weights, view()) is weights
    assert torch.equal(edited(Scaled(drop, 1.0), weights, view()), full)
    two = edited(InHeads(drop, (0, -1)), weights, view())
    assert torch.equal(two[:, [0, 3]], full[:, [0, 3]])
    assert torch.equal(two[:, 1:3], weights[:, 1:3])
    flat = InHeads(DropLayers(), (1,)).edit(torch.zeros(2, 1, 3, N), view())
    assert flat.shape[1] == HEADS
    assert flat[:, 1].isneginf().any()
    assert not flat[:, [0, 2, 3]].isneginf().any()
    assert InLayers(drop, 0.25, -1).needs.layers.of(8) == range(2, 7)
    assert InLayers(InHeads(drop, (0,)), 1).needs.rows is drop.needs.rows
    with pytest.raises(SpecError, match=r"heads \(9,\) are not among the model's 4"):
        edited(InHeads(drop, (9,)), weights, view())
    with pytest.raises(SpecError, match="does not act by heads"):
        InHeads(VisualContrast())
    with pytest.raises(SpecError, match="share of the layers"):
        Layers(1.5).of(8)
    with pytest.raises(SpecError, match="layers 12 to None are none of 3"):
        Layers(12).of(3)


@pytest.mark.parametrize(
    "build",
    [
        lambda: VAR(keep=2.0),
        lambda: GIFT(share=0.0),
        lambda: AIF(1.5),
        lambda: CMAI(1.0),
        lambda: NeighbourAware(-1),
        lambda: DropHeads(2.0),
        lambda: DebiasedAttention(0.0),
        lambda: VisualContrast(-1.0),
        lambda: ClinicalContrast((1,), ()),
        lambda: Scaled(CMAI(), -1.0),
        lambda: MADRAG(2.0),
    ],
)
def test_settings_out_of_range_are_refused(build):
    with pytest.raises(SpecError):
        build()


def test_columns_that_follow_one_another_are_read_and_written_as_any_others_are():
    scores = torch.randn(2, HEADS, 3, N, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    run = Columns.of([range(4, 11)] * 2, CPU)
    chosen = replace(run, run=None)
    assert run.run == slice(4, 11)
    assert LAYOUT.visual.run is None
    assert Columns.of([[4, 6, 7]] * 2, CPU).run is None
    more = torch.randn(2, HEADS, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    assert torch.equal(run.take(scores), chosen.take(scores))
    assert torch.equal(run.put(scores, more), chosen.put(scores, more))
    before = scores.clone()
    assert torch.equal(run.add(scores, more), chosen.add(scores, more))
    assert torch.equal(scores, before)
    torch.testing.assert_close(run.sum(scores), chosen.sum(scores))


def test_cmai_keeps_the_gazes_of_one_layer_when_no_decoding_follows(scores):
    kept, dropped, weights = {}, {}, scores.softmax(-1)
    for layer in range(3):
        again = CMAI(0.4).edit(weights, view(layer, memory=kept))
        assert torch.equal(CMAI(0.4).edit(weights, view(layer, memory=dropped, cached=False)), again)
    assert list(kept) == [0, 1, 2]
    assert list(dropped) == [2]


def test_steering_is_its_equation_and_keeps_the_length_of_every_state(tmp_path):
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(3)
    vectors, states = torch.randn(4, 6, generator=draw), torch.randn(2, 3, 6, dtype=torch.float64, generator=draw)
    save_file({"vectors": vectors}, tmp_path / "vectors.safetensors")
    made = FlexAC(str(tmp_path / "vectors.safetensors"), 0.7).edit(states, view(2))
    way = [float(x) for x in vectors[2]]
    long = math.sqrt(sum(x * x for x in way))
    for row, after in zip(states.flatten(0, 1), made.flatten(0, 1), strict=True):
        h = [float(x) for x in row]
        size = math.sqrt(sum(x * x for x in h))
        cosine = sum(x * v for x, v in zip(h, way, strict=True)) / size / long
        moved = [x + 0.7 * (1 - cosine) / 2 * size * v / long for x, v in zip(h, way, strict=True)]
        back = size / math.sqrt(sum(x * x for x in moved))
        torch.testing.assert_close(after, back * torch.tensor(moved, dtype=torch.float64), atol=1e-6, rtol=1e-6)


def test_positions_are_divided_by_ratios_that_rise_as_awareness_falls():
    draw = torch.Generator().manual_seed(4)
    query, key = 4 * torch.randn(2, HEADS, N, 8, generator=draw), torch.randn(2, 2, N, 8, generator=draw)
    ratios = PositionScaling(1.2, 1.8, peak=1.5).ratios(view(states=(query, key)))
    for i, spans in enumerate(SPANS):
        tokens, aware = range(spans.start, spans.stop), []
        for head in range(HEADS):
            asked = query[i, head, spans.stop - 1].double()
            e = [math.exp(float(asked @ key[i, head // 2, t].double()) / math.sqrt(8)) for t in tokens]
            aware.append(sum(x / sum(e) > 1.5 / len(tokens) for x in e) / len(tokens))
        groups = [aware[0] + aware[1], aware[2] + aware[3]]  # heads that share keys
        assert groups[0] != groups[1]
        assert ratios[i].tolist() == pytest.approx([1.2, 1.8] if groups[0] > groups[1] else [1.8, 1.2])


def test_a_layer_before_the_first_is_refused():
    assert CMAI(first=-4).needs.layers.of(4) == range(4)
    for part, number in ((InLayers(CMAI(), -100), -100), (CMAI(first=-9), -9), (CMAI(stop=-5), -5)):
        with pytest.raises(SpecError, match=f"layer {number} of a model of 4; a negative number .* to -4"):
            part.needs.layers.of(4)


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (VAR, {"tau": -1.0}),
        (VAR, {"rho": 5.0}),
        (VAR, {"mass": -0.1}),
        (VAR, {"dims": (-1,)}),
        (PositionScaling, {"peak": -1.0}),
        (PositionScaling, {"high": math.inf}),
        (FlexAC, {"alpha": math.inf, "vectors": "x"}),
        (VisualContrast, {"alpha": math.inf}),
        (ClinicalContrast, {"alpha": math.inf}),
        (ClinicalContrast, {"odds": (math.nan,), "tokens": (1,)}),
    ],
)
def test_settings_without_sense_are_refused(cls, arguments):
    with pytest.raises(SpecError, match=next(iter(arguments))):
        cls(**arguments)


@pytest.mark.parametrize(
    "part", [AIF(), BAIR(), CMAI(), ClinicalContrast(), DropHeads(), DropLayers(), FlexAC("x"), GIFT(), VAR()], ids=repr
)
def test_no_number_is_refused_wherever_a_number_goes(part):
    for name in (f.name for f in fields(part) if isinstance(getattr(part, f.name), int | float)):
        with pytest.raises(SpecError):
            replace(part, **{name: math.nan})


@pytest.mark.parametrize("token", [999_999, 7, -1])
def test_a_token_outside_the_vocabulary_is_refused(token):
    with pytest.raises(SpecError, match=f"token {token} is none of the model's vocabulary of 7; give 0 to 6"):
        ClinicalContrast((token,), (1.0,)).edit(torch.zeros(1, 1, 7), view())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at": "keys"}, "at='keys'; it must be one of scores, weights, shares"),
        ({"calibration": "barre"}, "calibration='barre'; it must be one of none, bare, whole"),
        ({"at": "weights", "parts": lambda view: None}, "parts with at='weights'; only shares have parts"),
    ],
)
def test_needs_that_the_seam_does_not_know_are_refused(arguments, message):
    with pytest.raises(SpecError, match=message):
        Needs(**arguments)
