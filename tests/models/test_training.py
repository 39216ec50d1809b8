"""A training of a few steps writes a folder that the library opens, and another can begin from it."""

from pathlib import Path

import pytest
import torch

from morgana.models import retriever
from morgana.models.retriever import train_retriever
from morgana.retrieval.encoders.openclip import OpenCLIP
from morgana.types import StoreError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retriever, "BATCH", 4)
        out = tmp_path_factory.mktemp("clip")
        train_retriever(out, steps=1, eye_steps=1, init=Path(retriever.__file__).parent / "atlas-clip")
    return out


def test_the_folder_opens_and_has_learned(trained: Path):
    encoder, bundled = OpenCLIP(str(trained)), OpenCLIP("atlas")
    texts = ["A harbour in clear air.", "Fog is cloud that touches the ground."]
    with torch.no_grad():
        mine, theirs = encoder.encode_text(texts), bundled.encode_text(texts)
    assert torch.allclose(mine.norm(dim=1), torch.ones(2), atol=1e-5)
    assert not torch.equal(mine, theirs)
    assert (mine * theirs).sum(1).min() > 0.5  # it began from the bundled one


def test_beginning_from_what_is_no_model_is_refused(tmp_path: Path, trained: Path):
    with pytest.raises(StoreError, match=r"tokenizer\.json"):
        train_retriever(tmp_path / "out", 1, init=tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.json").write_bytes((trained / "tokenizer.json").read_bytes())
    with pytest.raises(StoreError, match=r"open_clip_model\.safetensors"):
        train_retriever(tmp_path / "out", 1, init=other)
