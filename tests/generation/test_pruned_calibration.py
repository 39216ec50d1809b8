"""Interventions on what pruners left: their calibration passes, the layout they are told, and what that costs."""

from dataclasses import dataclass, field

import pytest
import torch

from morgana.generation._block import current
from morgana.generation.attention import intervening
from morgana.generation.cost import prefill_cost
from morgana.generation.generators.hf import HF
from morgana.generation.interventions.aif import AIF
from morgana.generation.layout import Layout
from morgana.generation.needs import Layers, Needs, last
from morgana.generation.pruning.fastv import FastV
from morgana.generation.pruning.uniform_grid import UniformGrid
from morgana.generation.shortening import pruning, relay
from morgana.types import Query, SpecError


@pytest.fixture
def batch(pixels, query, hits):
    return [pixels[:1], pixels[1:], None], [query, Query("b", "1987?"), query], [hits, hits[:1], ()]


@dataclass(frozen=True, eq=False)
class Notes:
    """Writes down how many visual tokens and how many tokens it is told of, layer by layer."""

    seen: dict = field(default_factory=dict)

    @property
    def needs(self):
        return Needs(rows=last, layers=Layers())

    def edit(self, x, view):
        self.seen[view.layer] = (view.layout.visual.valid.sum(-1).tolist(), view.layout.length, x.shape[-1])
        return x


def test_a_whole_calibration_sees_the_pruned_prompt(folder, batch):
    generator = HF(folder, interventions=(AIF(0.5),), pruner=UniformGrid(6))
    reference = generator._calibrate(*batch[:2], generator.write(*batch))
    notes = reference.notes[AIF(0.5)]
    assert sorted(notes["peaks"]) == [0, 1, 2]
    assert all(peak.shape == (3, 6) for peak in notes["peaks"].values())
    assert (notes["peaks"][0][:2] > 0).all()
    assert (notes["peaks"][0][2] == 0).all()  # no image
    whole = HF(folder, interventions=(AIF(0.5),))
    assert whole._calibrate(*batch[:2], whole.write(*batch)).notes[AIF(0.5)]["peaks"][0].shape == (3, 16)


def test_calibrated_and_pruned_rows_do_not_depend_on_their_batch(folder, batch):
    generator = HF(folder, interventions=(AIF(0.5),), pruner=UniformGrid(6))
    rows = generator.prefill(*batch)
    for i in (0, 1):
        alone = generator.prefill(*([given[i]] for given in batch))[0]
        torch.testing.assert_close(alone, rows[i], atol=3e-4, rtol=1e-4)
    assert not torch.allclose(rows[0], HF(folder, pruner=UniformGrid(6)).prefill(*batch)[0], atol=1e-4)
    assert not torch.allclose(rows[0], HF(folder, interventions=(AIF(0.5),)).prefill(*batch)[0], atol=1e-4)
    nothing = HF(folder, interventions=(AIF(0.0),), pruner=UniformGrid(6))
    assert torch.equal(nothing.prefill(*batch), HF(folder, pruner=UniformGrid(6)).prefill(*batch))


def test_layers_with_unequal_tokens_cannot_calibrate_together_and_say_so(folder, batch):
    generator = HF(folder, interventions=(AIF(0.5),), pruner=FastV(6, layer=1))
    with pytest.raises(SpecError, match="before the language model"):
        generator.prefill(*batch)


def test_interventions_are_told_where_everything_lies_at_every_layer(folder, batch):
    generator, notes = HF(folder), Notes()
    prompt = generator.write(*batch)
    length = prompt.spans[0].length
    with (
        torch.no_grad(),
        pruning(generator.network, (UniformGrid(9), FastV(4, layer=2)), prompt.spans) as kept,
        intervening(generator.network, (notes,), prompt.spans),
    ):
        generator.network(**prompt.inputs)
    assert notes.seen[0][0] == notes.seen[1][0] == [9, 9, 0]
    assert notes.seen[2][0] == [4, 4, 0]
    for layer in range(3):
        _, told, keys = notes.seen[layer]
        assert told == keys == kept.at(layer).shape[1] <= length
    assert current.get() is None


def test_a_layout_without_a_block_goes_nowhere(generator, batch):
    layout = Layout(generator.write(*batch).spans, torch.device("cpu"))
    relay(layout, None)
    assert current.get() is None
    with intervening(generator.network, (Notes(),), layout.spans), torch.no_grad():
        block = current.get()
        other = Layout(layout.spans, torch.device("cpu"))
        relay(other, None)
        assert block.layout is other
        block.known[(0,), 0, 1] = None
        relay(other, None)  # the very same: what is known of it stays known
        assert block.known
        relay(layout, None)
        assert not block.known
        generator.network(**generator.write(*batch).inputs)


def test_a_cost_counts_one_pass_over_the_prompt_whatever_was_calibrated(folder, pixels, query, hits):
    ask = [pixels[:1]], [query], [hits]
    plain = prefill_cost(HF(folder, pruner=UniformGrid(4)), *ask)
    steered = prefill_cost(HF(folder, pruner=UniformGrid(4), interventions=(AIF(0.5),)), *ask)
    assert steered[1:] == plain[1:]
    assert plain.tokens == (4, 4, 4)
