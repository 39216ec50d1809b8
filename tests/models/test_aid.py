import numpy as np
import pytest
import torch
from realism import LABELS, write_aid, write_maps
from safetensors.torch import load_file
from torch.testing import assert_close

from morgana.corpus.aid import AID
from morgana.corpus.images import load
from morgana.models import _aid_words as words
from morgana.models._aid_lessons import STORED, WEATHER, Batch, Lessons, photographs
from morgana.models.aid import EXACT, as_product, contrast, targets, train_aid
from morgana.retrieval.encoders.openclip import OpenCLIP
from morgana.types import StoreError


@pytest.fixture
def data(tmp_path):
    write_aid(tmp_path / "aid")
    write_maps(tmp_path / "clouds")
    return tmp_path


@pytest.fixture
def lessons(data):
    tiles = AID(str(data / "aid"), split="train", haze=False).tiles()
    return Lessons(tiles, photographs(tiles), data / "clouds", 0, 8)


def test_photographs_are_decoded_to_one_size(lessons):
    assert lessons.photographs.shape == (11, 3, STORED, STORED)
    shown = lessons.photographs[0].float().mean() / 255
    assert shown == pytest.approx(float(load(lessons.tiles[0].image).mean()), abs=0.01)


def test_a_batch_follows_from_the_step_alone(lessons):
    first, again, other = lessons.batch(3, 32), lessons.batch(3, 32), lessons.batch(4, 32)
    assert torch.equal(first.images, again.images)
    assert first.texts == again.texts
    assert not torch.equal(first.images, other.images)
    assert first.images.shape == (8, 3, 32, 32)
    assert first.images.dtype == torch.uint8


def test_every_tile_comes_once_a_round(lessons):
    drawn = np.concatenate([lessons.order(step) for step in range(11)])
    for start in range(0, 88, 11):
        assert sorted(drawn[start : start + 11]) == list(range(11))


def test_every_label_and_weather_has_a_text_in_every_batch(lessons):
    batch = lessons.batch(0, 16)
    assert set(LABELS) | {WEATHER} <= {key for fits in batch.fits for key in fits}
    assert all(key in fits for key, fits in zip(batch.keys, batch.fits, strict=False))


def test_thick_cloud_is_called_weather_and_thin_cloud_is_not(lessons):
    draw = np.random.default_rng(0)
    heavy = [lessons.text(lessons.tiles[0], 0.7, "thick cloud", draw)[1] for _ in range(60)]
    light = [lessons.text(lessons.tiles[0], 0.12, "thin cloud", draw)[1] for _ in range(60)]
    assert heavy.count(WEATHER) > 45
    assert set(light) == {lessons.tiles[0].label}


def test_skies_cover_a_part_of_the_images(lessons):
    tiles = torch.full((400, 3, 16, 16), 0.3)
    under, covers, veils = lessons.under_sky(tiles, np.random.default_rng(0))
    assert 0.25 < float((covers > 0).float().mean()) < 0.45
    assert torch.equal(under[covers == 0], tiles[covers == 0])
    assert (under[covers > 0].mean((1, 2, 3)) > 0.3).all()
    assert set(veils) == {"haze", "thin cloud", "thick cloud"}


def test_targets_are_shared_by_what_fits_and_favour_the_own_text():
    batch = Batch(
        torch.zeros(2, 3, 4, 4),
        ("Port", "Park"),
        ("a", "b", "c", "a"),
        tuple(map(frozenset, (["Port"], ["Park"], ["Port"], ["Port"]))),
    )
    found = targets(batch, ["a", "b", "c"])
    assert_close(found, torch.tensor([[0.5 + EXACT / 2, 0.0, 0.5 - EXACT / 2], [0.0, 1.0, 0.0]]))


def test_the_loss_is_the_cross_entropy_in_both_directions():
    image = torch.eye(2)
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    scale, target = torch.tensor(2.0), torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    logits = 2 * image @ text.T
    there = (torch.logsumexp(logits, 1) - logits.diagonal()).mean()
    back = (torch.logsumexp(logits[:, :2], 0) - logits.diagonal()).mean()  # the third text is nobody's
    assert_close(contrast(image, text, scale, target), (there + back) / 2)


@pytest.mark.parametrize(("stride", "side"), [(1, 2), (1, 3), (2, 6)])
def test_a_convolution_as_a_product_is_the_convolution(stride, side):
    conv = torch.nn.Conv2d(8, 16, 3, stride=stride, padding=1, dtype=torch.float64)
    pixels = torch.randn(4, 8, side, side, dtype=torch.float64, requires_grad=True)
    parameters = (pixels, conv.weight, conv.bias)
    ours, theirs = as_product(conv, pixels), conv(pixels)
    assert_close(ours, theirs)
    for got, wanted in zip(*(torch.autograd.grad((y**2).sum(), parameters) for y in (ours, theirs)), strict=True):
        assert_close(got, wanted)


def test_where_nothing_is_learnt_a_convolution_is_left_as_it_is(monkeypatch):
    conv, pixels = torch.nn.Conv2d(8, 16, 3, padding=1), torch.randn(2, 8, 3, 3)
    monkeypatch.delattr(torch.nn.functional, "unfold")
    with torch.no_grad():
        assert torch.equal(as_product(conv, pixels), conv(pixels))
    assert torch.equal(as_product(conv.requires_grad_(False), pixels), conv(pixels))


def test_labels_become_words():
    assert words.phrase("DenseResidential") == "dense residential"
    draw = np.random.default_rng(0)
    long = "many boats are in a port ."
    assert set(words.worn(long, draw).split()) <= set(long.split())
    assert words.worn("port", draw) == "port"


@pytest.mark.slow
def test_a_trained_folder_is_an_encoder_and_training_it_again_changes_nothing(data):
    out = data / "model"
    train_aid(data / "aid", data / "clouds", out, steps=2, batch=4, text_steps=2)
    weights = (out / "open_clip_model.safetensors").read_bytes()
    encoder = OpenCLIP(str(out))
    pixels = load(AID(str(data / "aid")).tiles()[0].image).requires_grad_()
    encoder.encode_image(pixels)[0, 0].backward()
    assert pixels.grad.abs().sum() > 0
    assert encoder.encode_text(["a port ."]).shape == (1, 192)
    train_aid(data / "aid", data / "clouds", out, steps=2, batch=4, text_steps=2)
    assert (out / "open_clip_model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_the_texts_are_taught_beside_a_finished_image_tower_and_anew_when_it_goes_on(data):
    def trained(steps, text_steps):
        train_aid(data / "aid", data / "clouds", data / "model", steps=steps, batch=4, text_steps=text_steps)
        tensors = load_file(data / "model" / "open_clip_model.safetensors")
        return [{k: v for k, v in tensors.items() if k.startswith(tower)} for tower in ("visual.", "text.")]

    def same(left, right):
        return left.keys() == right.keys() and all(torch.equal(v, right[k]) for k, v in left.items())

    seen, read = trained(2, 1)
    longer_seen, longer_read = trained(2, 3)
    assert same(longer_seen, seen)  # batch norm's statistics too
    assert not same(longer_read, read)
    further_seen, further_read = trained(3, 3)
    assert not same(further_seen, seen)
    assert not same(further_read, longer_read)
    with pytest.raises(StoreError, match="has 3 steps behind it, and 2 were asked for"):
        trained(2, 3)
