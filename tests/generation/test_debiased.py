"""Debiased is the pruner that it wraps, but for the weight of its scores."""

from dataclasses import replace

import pytest
import torch
from sights import EYES, N, prompt

from morgana.generation.interventions.cmai import CMAI
from morgana.generation.pruner import Narrowing, Scored, Sharing
from morgana.generation.pruning.debiased import Debiased
from morgana.generation.pruning.fastervlm import FasterVLM
from morgana.generation.pruning.flowcut import FlowCut
from morgana.generation.pruning.hired import HiRED
from morgana.spec import components
from morgana.types import SpecError

KEEP = 6


def hosts():
    for cls in components("pruner"):
        if issubclass(cls, Scored) and cls is not Debiased:
            try:
                Debiased(cls())
            except SpecError:
                assert cls.__name__ in ("CATP", "ZerothOrder")
            else:
                yield cls(KEEP)


HOSTS = list(hosts())


def scenes(pruner, images=1, lean=0.0):
    """What it is shown at each of its stages; later tokens get more attention by exp(lean) from end to end."""
    for stage in pruner.stages(4):
        if stage.done <= 1 and stage.layer < 4:
            sights = prompt(layer=stage.layer, images=images)
            for found in (*sights[0].eye.taken.values(), *(o.taken for o in sights[0].operands.values())):
                found.key[..., 0] = torch.linspace(0, lean, found.key.shape[2]) / found.scaling
                found.query[..., 0] = 1
            yield tuple(closed(pruner, sight) for sight in sights)


def closed(pruner, sight):
    """The sight after what the pruner does inside the vision tower."""
    if not isinstance(pruner, Narrowing):
        return sight
    still, scores = torch.ones(N + 1, dtype=torch.bool), None
    for layer in pruner.watched(4, EYES).vision:
        still, scores = pruner.narrow(layer, sight.eye.taken[layer], still, scores, EYES)
    return replace(sight, eye=replace(sight.eye, open=still, scores=scores))


def test_every_pruner_that_scores_by_attention_is_accepted():
    assert len(HOSTS) >= 18
    assert {"VMTC", "HiRED", "FlowCut", "CATPLate", "VisionDrop", "Turbo"} <= {type(host).__name__ for host in HOSTS}


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: type(host).__name__)
class TestHost:
    def test_with_equal_weights_nothing_changes(self, host):
        twin = Debiased(host, last=1.0)
        assert twin.stages(32) == host.stages(32)
        assert twin.watched(32, 24) == host.watched(32, 24)
        assert isinstance(twin, Narrowing) == isinstance(host, Narrowing)
        for (sight,) in scenes(host):
            wanted, found = (pruner.choose(sight, KEEP) for pruner in (host, twin))
            assert torch.equal(wanted.index, found.index)
            assert (wanted.states is None) == (found.states is None)
            assert wanted.states is None or torch.equal(wanted.states, found.states)

    def test_budgets_are_divided_as_the_host_divides_them(self, host):
        for sights in scenes(host, images=5):
            counts = (KEEP,) * 5
            wanted = host.share(sights, counts) if isinstance(host, Sharing) else counts
            assert Debiased(host, last=1.0).share(sights, counts) == wanted

    def test_less_weight_for_what_stands_late_moves_the_choice(self, host):
        moved = [
            [p.choose(sight, 11).index.double().mean() for p in (Debiased(host, last=1e-3), host)]  # merges: half stay
            for (sight,) in scenes(host, lean=3.0)
        ]
        assert all(earlier <= plain for earlier, plain in moved)  # a causal mask leans to the early already
        assert any(earlier < plain for earlier, plain in moved)


def test_a_lean_that_is_known_is_undone():
    """Attention of CLS that rises by exp(3) from end to end, but for one token."""
    ((sight,),) = scenes(FasterVLM(1), lean=3.0)
    for found in sight.eye.taken.values():
        found.key[...] = found.key * torch.tensor([1.0, *[0] * 5], dtype=torch.float64)
        found.key[..., 3, 0] += 1 / found.scaling  # place 2
    assert FasterVLM().choose(sight, 1).index.tolist() == [N - 1]
    assert Debiased(FasterVLM(), last=float(torch.tensor(-3.0).exp())).choose(sight, 1).index.tolist() == [2]


@pytest.mark.parametrize("other", [3, CMAI(), (FasterVLM(), FlowCut()), FasterVLM], ids=repr)
def test_what_is_no_pruner_is_refused(other):
    with pytest.raises(SpecError, match="pruner"):
        Debiased(other)


def test_it_shares_and_narrows_in_a_model(families):
    from morgana.generation.generators.hf import HF
    from morgana.types import Query

    tall = [torch.rand(1, 3, 64, 32, generator=torch.Generator().manual_seed(3))]
    for host in (HiRED(12, 0.8), FlowCut(5)):
        plain, twin = (HF(families["llava_next"], pruner=p) for p in (host, Debiased(host, 1.0)))
        batch = tall, [Query("q", "What?")], [()]
        assert torch.equal(plain.prefill(*batch), twin.prefill(*batch))


def test_it_may_be_wrapped_again():
    ((sight,),) = scenes(FasterVLM(1))
    twice = Debiased(Debiased(FasterVLM(), 0.5), 0.5)
    assert torch.equal(twice.choose(sight, KEEP).index, Debiased(FasterVLM(), 0.25).choose(sight, KEEP).index)
    assert torch.allclose(twice.scores(sight), Debiased(FasterVLM(), 0.25).scores(sight))
