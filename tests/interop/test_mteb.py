"""The encoder as an mteb model."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from fakes import ConvEncoder
from PIL import Image

from morgana.corpus.images import load
from morgana.interop.mteb import Model
from morgana.retrieval.encoders.hash import HashEncoder
from morgana.types import SpecError

EYE = ConvEncoder(16)


def test_texts_and_images_are_embedded_as_the_encoder_does(tmp_path):
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(tmp_path / "x.png")
    image = Image.open(tmp_path / "x.png")
    rows = Model(EYE).encode([{"image": [image]}, {"image": [image, torch.tensor(np.array(image)).permute(2, 0, 1)]}])
    wanted = EYE.encode_image(load(tmp_path / "x.png")).detach().numpy()
    assert rows.shape == (3, 16)
    np.testing.assert_allclose(rows, np.repeat(wanted, 3, axis=0), atol=1e-6)
    np.testing.assert_array_equal(Model(EYE).encode([{"text": ["a", "b"]}]), EYE.encode_text(["a", "b"]).numpy())
    both = Model(EYE).encode([{"text": ["a"], "image": [image]}])
    summed = wanted + EYE.encode_text(["a"]).numpy()
    np.testing.assert_allclose(both, summed / np.linalg.norm(summed), atol=1e-6)


def test_similarity_is_the_cosine():
    a, b = np.array([[3.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 1.0], [0.0, -1.0]])
    half = 0.5**0.5
    model = Model("HashEncoder(dimension=8)")
    np.testing.assert_allclose(model.similarity(a, b), [[half, 0], [half, -1]], atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(a, b), [half, -1], atol=1e-6)


def test_other_batches_and_parts_are_refused():
    with pytest.raises(SpecError, match="a batch of audio"):
        Model(EYE).encode([{"audio": [1]}])
    with pytest.raises(SpecError, match="is no encoder"):
        Model("PGD()")


@pytest.mark.peers
@pytest.mark.parametrize(("encoder", "modalities"), [(EYE, {"text", "image"}), (HashEncoder(64), {"text"})])
def test_every_mock_task_that_fits_passes(encoder, modalities):
    """mteb's own check of a model, offline, on two to a few samples a task; nothing may be skipped."""
    pytest.importorskip("mteb", reason="mteb is not installed")
    import mteb
    from mteb.mocks import ALL_MOCK_TASK_TEST_GRID
    from mteb.results.task_result import TaskResult

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two samples some metrics are undefined
        status = dict(mteb.mock_run(Model(encoder)).items())
    fitting = {t.metadata.name for t in ALL_MOCK_TASK_TEST_GRID if set(t.metadata.modalities) <= modalities}
    assert len(fitting) >= (43 if encoder.image_size else 28)
    assert {name for name, found in status.items() if isinstance(found, TaskResult)} == fitting
