import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from morgana.eval.naturalness import auc, features, ssim, tell_apart
from morgana.types import SpecError


def waves():
    y, x = np.mgrid[0:24, 0:20].astype(float)
    first = np.stack([0.5 + 0.5 * np.sin(0.3 * x + 0.2 * y * c) for c in (1, 2, 3)])
    second = np.clip(0.8 * first + 0.15 * np.cos(0.5 * x * y / 7) ** 2, 0, 1)
    return torch.from_numpy(first)[None], torch.from_numpy(second)[None]


def test_ssim_is_scikit_image_s():
    first, second = waves()
    # skimage 0.26: structural_similarity(…, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    # data_range=1, channel_axis=-1)
    assert ssim(first, second).item() == pytest.approx(0.913516121897333, abs=1e-9)


def test_ssim_of_flat_images_is_the_closed_form():
    a, b = 0.2, 0.7
    first, second = torch.full((1, 3, 16, 16), a), torch.full((1, 3, 16, 16), b)
    assert ssim(first, second).item() == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4), abs=1e-6)
    assert ssim(first, first).item() == pytest.approx(1.0, abs=1e-12)


def test_ssim_judges_rows_apart_and_refuses_what_it_cannot_compare():
    first, second = waves()
    both = ssim(torch.cat([first, first]), torch.cat([second, first]))
    assert both[0] == ssim(first, second)[0]
    assert both[1] == pytest.approx(1.0)
    with pytest.raises(SpecError, match=r"SSIM of \(1, 3, 24, 20\) and \(1, 3, 8, 8\)"):
        ssim(first, torch.zeros(1, 3, 8, 8))


def sky(count, seed, cells=6):
    source = torch.Generator().manual_seed(seed)
    field = interpolate(torch.randn(count, 1, cells, cells, generator=source), (48, 48), mode="bicubic")
    return torch.sigmoid(3 * field)


def test_maps_of_one_family_cannot_be_told_apart():
    found = tell_apart(sky(150, 0), sky(150, 1))
    assert found.low <= 0.5 <= found.high
    assert 0.4 < found.value < 0.6
    assert found.n == 300


def test_hard_edges_and_other_scales_give_maps_away():
    soft = sky(60, 0)
    hard = (sky(60, 1) > 0.5).float() * 0.9
    assert tell_apart(hard, soft).low > 0.95
    assert tell_apart(sky(60, 1, cells=12), soft).low > 0.95


def test_views_of_one_map_do_not_help_to_judge_each_other():
    """With maps that differ only by a shared accident of their group, grouping keeps the AUC near a coin's."""
    source = np.random.default_rng(0)
    accident = torch.from_numpy(source.random(40)).float().repeat_interleave(5).view(-1, 1, 1, 1)
    maps = (sky(200, 3) * (0.2 + accident)).clamp(0, 1)
    groups = [str(i // 5) for i in range(200)]
    alone = tell_apart(maps[:100], maps[100:])
    grouped = tell_apart(maps[:100], maps[100:], (groups[:100], groups[100:]))
    assert grouped.value < alone.value
    assert grouped.high - grouped.low > alone.high - alone.low


def test_features_do_not_depend_on_the_size_of_a_smooth_map():
    maps = sky(3, 0)
    large = interpolate(maps, (150, 150), mode="bicubic").clamp(0, 1)
    np.testing.assert_allclose(features(avg_pool2d(large, 1))[:, 12:21], features(maps)[:, 12:21], atol=0.1)
    assert np.isfinite(features(torch.zeros(2, 1, 20, 20))).all()


def test_auc_counts_pairs_with_ties_as_half():
    scores, labels = np.array([3.0, 1.0, 2.0, 2.0]), np.array([1.0, 0.0, 1.0, 0.0])
    assert auc(scores, labels) == (1 + 1 + 1 + 0.5) / 4


def test_too_few_groups_are_refused():
    with pytest.raises(SpecError, match="4 and 4 maps in 8 groups for 5 folds"):
        tell_apart(sky(4, 0), sky(4, 1))
