"""A fresh decoder repeats what it has just read."""

import torch
from transformers import LlamaForCausalLM

from morgana.generation.reference import reference_config
from morgana.models.copying import write_induction


def repeated(model: LlamaForCausalLM, length: int) -> float:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        once = torch.randint(4, model.config.vocab_size, (8, length))
        best = model(input_ids=torch.cat([once, once], 1)).logits[:, length:-1].argmax(-1)
    return float((best == once[:, 1:]).float().mean())


def decoder() -> LlamaForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(reference_config(2560).text_config)


def test_the_circuit_copies_before_any_training_and_random_weights_do_not():
    model = decoder()
    before = repeated(model, 60)
    write_induction(model.model, torch.Generator().manual_seed(0))
    assert before < 0.02
    assert repeated(model, 60) > 0.8


def test_the_same_seed_writes_the_same_circuit():
    first, second = decoder(), decoder()
    for model in (first, second):
        write_induction(model.model, torch.Generator().manual_seed(3))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
