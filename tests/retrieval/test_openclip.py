import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from morgana.retrieval.encoders.openclip import ROWS_CPU, OpenCLIP
from morgana.spec import parse
from morgana.types import SpecError, StoreError
from morgana.weights import device


@pytest.fixture(scope="module")
def encoder(tiny_clip_folder):
    return OpenCLIP(str(tiny_clip_folder))


def images(count, height=32, width=32):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def copied(folder, to):
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_images_and_texts_become_unit_rows_of_one_space(encoder):
    rows = torch.cat([encoder.encode_image(images(3)), encoder.encode_text(["a boat", "Bluewater " * 50])])
    assert rows.shape == (5, encoder.dimension) == (5, 24)
    assert torch.allclose(rows.norm(dim=1), torch.ones(5), atol=1e-6)
    assert rows.dtype == torch.float32
    assert encoder.image_size == 32


def test_it_equals_open_clip_itself_at_the_models_own_size(encoder, tiny_clip_folder):
    import open_clip

    address = f"local-dir:{tiny_clip_folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(address)
    tokenizer = open_clip.get_tokenizer(address)
    model.eval()
    grid = (images(1) * 255).round()
    from PIL import Image

    picture = Image.fromarray(grid[0].byte().permute(1, 2, 0).numpy())
    with torch.no_grad():
        theirs = model.encode_image(preprocess(picture)[None], normalize=True)
        words = model.encode_text(tokenizer(["the harbour of Calmouth"]), normalize=True)
    assert torch.allclose(encoder.encode_image(grid / 255), theirs, atol=1e-6)
    assert torch.allclose(encoder.encode_text(["the harbour of Calmouth"]), words, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (45, 61), (20, 90)])
def test_gradients_reach_every_pixel(encoder, size):
    pixels = images(2, *size).requires_grad_()
    encoder.encode_image(pixels)[:, 0].sum().backward()
    assert (pixels.grad != 0).float().mean() > 0.999
    assert torch.isfinite(pixels.grad).all()


def test_gradients_stay_out_of_the_weights(encoder):
    assert not encoder.encode_image(images(1)).requires_grad


def test_the_gradient_is_that_of_finite_differences(encoder):
    pixels = images(1, 40, 40).requires_grad_()
    direction = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    target = encoder.encode_text(["boat"])[0]
    (encoder.encode_image(pixels)[0] @ target).backward()
    with torch.no_grad():
        ahead, behind = (encoder.encode_image(pixels + h * direction)[0] @ target for h in (1e-3, -1e-3))
    assert float((pixels.grad * direction).sum()) == pytest.approx(float(ahead - behind) / 2e-3, rel=0.02)


def test_a_vector_does_not_depend_on_its_batch(encoder):
    batch = images(7)
    assert torch.allclose(encoder.encode_image(batch)[3:4], encoder.encode_image(batch[3:4]), atol=1e-6)
    texts = ["boat", "a much longer text about the harbour", ""]
    assert torch.allclose(encoder.encode_text(texts)[0:1], encoder.encode_text(["boat"]), atol=1e-6)


def test_a_batch_of_several_forward_passes_is_whole_and_in_order(encoder):
    pixels = images(ROWS_CPU["image"] * 2 + 1).requires_grad_()
    rows = encoder.encode_image(pixels)
    for i in (0, ROWS_CPU["image"] - 1, ROWS_CPU["image"], len(pixels) - 1):
        assert torch.allclose(rows[i], encoder.encode_image(pixels[i : i + 1])[0], atol=1e-6)
    rows[:, 0].sum().backward()
    assert (pixels.grad.flatten(1) != 0).float().mean(1).min() > 0.999
    texts = [f"boat {n}" for n in range(ROWS_CPU["text"] + 2)]
    many = encoder.encode_text(texts)
    assert torch.allclose(many[[0, -3, -2, -1]], encoder.encode_text([texts[n] for n in (0, -3, -2, -1)]), atol=1e-6)


def test_nothing_gives_no_rows(encoder):
    assert encoder.encode_text([]).shape == (0, 24)
    assert encoder.encode_image(images(0)).shape == (0, 24)


def test_the_fingerprint_names_the_weights_not_the_folder(encoder, other_clip_folder, tiny_clip_folder, tmp_path):
    same = copied(tiny_clip_folder, tmp_path / "same")
    assert OpenCLIP(str(same)).fingerprint == encoder.fingerprint
    assert OpenCLIP(str(other_clip_folder)).fingerprint != encoder.fingerprint
    config = json.loads((same / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.1, 0.1, 0.1]
    (same / "open_clip_config.json").write_text(json.dumps(config))
    assert OpenCLIP(str(same)).fingerprint != encoder.fingerprint


def test_its_name_builds_it_again(encoder):
    assert parse(repr(encoder)) == encoder
    assert repr(OpenCLIP("ViT-B-32", "openai")) == "OpenCLIP('ViT-B-32', pretrained='openai')"


def test_nan_weights_are_named(tiny_clip_folder, tmp_path):
    folder = copied(tiny_clip_folder, tmp_path / "nan")
    weights = load_file(folder / "open_clip_model.safetensors")
    weights["visual.proj"][0, 0] = float("nan")
    save_file(weights, folder / "open_clip_model.safetensors")
    with pytest.raises(StoreError, match=r"weights of OpenCLIP\(.*nan'\) hold NaN or infinity, first in 'visual.proj'"):
        OpenCLIP(str(folder)).encode_image(images(1))


def test_a_folder_without_weights_is_not_filled_with_random_ones(tiny_clip_folder, tmp_path):
    folder = copied(tiny_clip_folder, tmp_path / "bare")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(StoreError, match=r"cannot load OpenCLIP.*could not be loaded"):
        OpenCLIP(str(folder)).encode_image(images(1))


def test_cut_off_weights_are_refused(tiny_clip_folder, tmp_path):
    folder = copied(tiny_clip_folder, tmp_path / "cut")
    file = folder / "open_clip_model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(StoreError, match="cannot load OpenCLIP"):
        OpenCLIP(str(folder)).encode_image(images(1))


@pytest.mark.parametrize(
    ("encoder", "error", "message"),
    [
        (OpenCLIP("ViT-B-33"), SpecError, r"open_clip knows no model 'ViT-B-33' \(did you mean ViT-B-32"),
        (OpenCLIP("ViT-B-32"), SpecError, "names no weights; add one of .*laion2b_s34b_b79k"),
        (OpenCLIP("ViT-B-32", "laion2b_s34b"), SpecError, r"has no weights 'laion2b_s34b' \(did you mean laion2b_"),
    ],
    ids=repr,
)
def test_unknown_names_are_answered_with_the_nearest(encoder, error, message):
    with pytest.raises(error, match=message):
        encoder.encode_text(["boat"])


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"holds no open_clip_config\.json"):
        OpenCLIP(str(tmp_path)).encode_text(["boat"])


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 0, 32)])
def test_other_shapes_are_refused(encoder, shape):
    with pytest.raises(SpecError, match=r"it wants \(B, 3, H, W\) in \[0, 1\]"):
        encoder.encode_image(torch.zeros(shape))


def test_the_device_is_named_by_the_environment(monkeypatch):
    monkeypatch.setenv("MORGANA_DEVICE", "cpu")
    assert device() == torch.device("cpu")
    monkeypatch.setenv("MORGANA_DEVICE", "gpu-7")
    with pytest.raises(SpecError, match="MORGANA_DEVICE='gpu-7' is no device"):
        device()
