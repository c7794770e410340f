"""Fusion methods on blocks whose right answer is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.special import expit

from ecgstore.errors import EcgStoreError, NotEnoughDataError, UsageError
from ecgstore.fusion import CCA, PCA, Attention, Average, Rank, Whiten, fusions
from ecgstore.statistics.metrics import measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgstore.fusion import Fusion
    from ecgstore.tasks import Target

    Blocks = list[NDArray[Any]]

SMALL: dict[str, dict[str, int | float | str]] = {
    "attention": {"width": 8, "epochs": 4, "batch_size": 64}
}
"""Settings that make a method quick; the rest is quick as it is."""


def blocks_for(name: str, *, n: int = 160, seed: int = 0, target: Target = "binary") -> Any:
    """Return what a method takes of two members, and labels they tell something of."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(np.float64)
    if target == "continuous":
        y = rng.normal(size=n)
    if fusions.get(name).takes == "vectors":
        x: Blocks = [rng.normal(size=(n, dim)).astype(np.float32) for dim in (5, 7)]
        for block in x:
            block[:, 0] += y.astype(np.float32)
        return x, y
    if target == "multiclass":
        return [softened(y, rng) for _ in range(2)], y
    noisy = [(y + rng.normal(size=n))[:, None] for _ in range(2)]
    return (noisy if target == "continuous" else [expit(one) for one in noisy]), y


def softened(y: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    z = np.exp(np.eye(2)[y.astype(int)] + rng.normal(size=(len(y), 2)))
    return np.asarray(z / z.sum(axis=1, keepdims=True))


def fitted(name: str, blocks: Blocks, y: Any, *, target: Target = "binary") -> Fusion:
    fusion = fusions.get(name)(SMALL.get(name), target=target)
    fusion.fit(blocks, y, groups=np.arange(len(y)) // 2)
    return fusion


def auroc(y: NDArray[np.float64], scores: NDArray[Any]) -> float:
    return measure(y, scores)["AUROC"]


CASES = [
    (name, target)
    for name in fusions.names()
    for target in ("binary", "multiclass", "continuous")
    if target in fusions.get(name).targets
]


@pytest.mark.parametrize(("name", "target"), CASES)
def test_a_fusion_applies_as_its_interface_says_and_survives_saving(
    name: str, target: Target
) -> None:
    blocks, y = blocks_for(name, target=target)
    train = [block[:100] for block in blocks]
    fusion = fitted(name, train, y[:100], target=target)
    made = fusion.apply([block[100:] for block in blocks])
    scores = fusion.makes == "scores"
    assert made.dtype == (np.float64 if scores else np.float32)
    assert made.ndim == (1 if scores and target != "multiclass" else 2)
    assert len(made) == 60
    assert np.isfinite(made).all()
    if scores and target == "multiclass":
        assert made.sum(axis=1) == pytest.approx(1)
    again = type(fusion).load(fusion.save(), target=target)
    assert again.params == fusion.params
    assert np.array_equal(again.apply([block[100:] for block in blocks]), made)
    # The same records once more give the same fusion, whatever was done in between.
    assert fitted(name, train, y[:100], target=target).save() == fusion.save()


@pytest.mark.parametrize("name", fusions.names())
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_other_records_change_nothing_of_what_a_record_gets(name: str, seed: int) -> None:
    blocks, y = blocks_for(name, n=120, seed=seed)
    fusion = fitted(name, [block[:100] for block in blocks], y[:100])
    before = fusion.save()
    rng = np.random.default_rng(seed)
    tested = [block[100:] for block in blocks]
    changed = [block.copy() for block in tested]
    for block in changed:
        block[1:] = rng.random(block[1:].shape)
    assert fusion.apply(changed)[0] == pytest.approx(fusion.apply(tested)[0], abs=1e-5)
    assert fusion.apply([block[:1] for block in tested])[0] == pytest.approx(
        fusion.apply(tested)[0], abs=1e-5
    )
    assert fusion.save() == before


@pytest.mark.parametrize("name", fusions.names())
def test_a_record_that_lacks_a_member_is_not_lost(name: str) -> None:
    blocks, y = blocks_for(name)
    blocks[0][:30] = np.nan
    blocks[1][130:] = np.nan
    fusion = fitted(name, blocks, y)
    made = fusion.apply(blocks)
    if fusion.makes == "scores":
        assert np.isfinite(made).all()
        assert auroc(y, made) > 0.6
        with pytest.raises(NotEnoughDataError, match="1 of 160 records"):
            fusion.apply([np.where(np.arange(160)[:, None] == 5, np.nan, one) for one in blocks])
    else:
        lacking = np.isnan(made)
        share = made.shape[1] // 2 if name == "cca" else 5
        assert lacking[:30, :share].all()
        assert not lacking[:30, share:].any()
        assert not lacking[30:130].any()
        assert lacking[130:, share:].all()
    with pytest.raises(UsageError, match="1 members were given; 2 were expected"):
        fusion.apply(blocks[:1])


def test_pca_equals_the_singular_vectors_and_keeps_no_more_than_the_rank() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3)) @ rng.normal(size=(3, 6)) + 5  # rank 3
    flat = np.hstack([x, np.full((80, 1), 2.0)])
    fusion = PCA({"dims": 10})
    fusion.fit([flat, x[:, :2]], np.zeros(80), groups=np.arange(80))
    assert fusion.dims == (3, 2)
    made = fusion.apply([flat, x[:, :2]])
    z = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    sizes = np.linalg.svd(z, compute_uv=False)[:3]
    assert made[:, :3].std(axis=0, ddof=1) == pytest.approx(sizes / np.sqrt(79), rel=1e-5)
    # Components of the records in three dimensions keep every distance between records.
    apart = np.linalg.norm(z[0] - z[1:], axis=1)
    assert np.linalg.norm(made[0, :3] - made[1:, :3], axis=1) == pytest.approx(apart, rel=1e-4)


def test_whitened_components_have_unit_variance_and_no_correlation() -> None:
    (x, _), y = blocks_for("whiten")
    fusion = Whiten({"dims": 5})
    fusion.fit([x], y, groups=np.arange(len(y)))
    assert np.cov(fusion.apply([x]).T) == pytest.approx(np.eye(5), abs=1e-4)


def test_cca_recovers_a_shared_latent_and_the_canonical_correlations() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(600, 1))
    a, b = (
        np.hstack([rng.normal(size=(600, k)), shared + 0.3 * rng.normal(size=(600, 1))])
        for k in (4, 6)
    )
    fusion = CCA({"dims": 3, "shrinkage": 0.0})
    fusion.fit([a, b], shared[:, 0], groups=np.arange(600))
    made = fusion.apply([a, b])
    found = [np.corrcoef(made[:, i], made[:, 3 + i])[0, 1] for i in range(3)]
    angles = subspace_angles(a - a.mean(axis=0), b - b.mean(axis=0))
    assert found == pytest.approx(np.cos(angles)[::-1][:3], abs=1e-5)
    assert abs(np.corrcoef(made[:, 0], shared[:, 0])[0, 1]) > 0.95
    assert made.std(axis=0, ddof=1) == pytest.approx(1, rel=1e-5)
    # Of three members the third sees nothing: the two others still meet.
    third = rng.normal(size=(600, 5))
    more = CCA({"dims": 1})
    more.fit([a, b, third], shared[:, 0], groups=np.arange(600))
    variates = more.apply([a, b, third])
    assert np.corrcoef(variates[:, 0], variates[:, 1])[0, 1] > 0.9
    with pytest.raises(UsageError, match="2 members or more"):
        CCA().fit([a], shared[:, 0], groups=np.arange(600))


def test_the_average_and_the_rank_by_hand() -> None:
    a, b = (np.array([one]).T for one in ([0.2, 0.4, 0.6], [0.1, np.nan, 0.3]))
    average = Average()
    average.fit([a, b], np.zeros(3), groups=np.arange(3))
    assert average.apply([a, b]) == pytest.approx([0.15, 0.4, 0.45])

    # The first member puts 3 of 4 pairs in order (AUROC 0.75), the second all (1.0).
    first, second = np.array([[0.1, 0.4, 0.35, 0.8]]).T, np.array([[1.0, 2.0, 3.0, 4.0]]).T
    rank = Rank()
    rank.fit([first, second], np.array([0.0, 0, 1, 1]), groups=np.arange(4))
    # 0.4 ties with one of four below which are two: (2 + 0.5) / 4; 9 is above all: 1.
    new = [np.array([[0.4], [np.nan]]), np.array([[9.0], [2.5]])]
    assert rank.apply(new) == pytest.approx([(0.25 * 0.625 + 0.5 * 1) / 0.75, 0.5])
    rank.fit([-first, -second], np.array([0.0, 0, 1, 1]), groups=np.arange(4))
    assert rank.apply(new) == pytest.approx([(1 + 1) / 2, 1.0])  # none is better than chance


def test_stacking_beats_the_average_when_a_member_is_noise() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(1000) < 0.3).astype(np.float64)
    good, also = (expit(1.5 * y + rng.normal(size=1000))[:, None] for _ in range(2))
    noise = expit(4 * rng.normal(size=1000))[:, None]
    blocks = [good, noise, also]
    scores = {}
    for name in ("average", "rank", "stacking"):
        fusion = fitted(name, [block[:600] for block in blocks], y[:600])
        scores[name] = auroc(y[600:], fusion.apply([block[600:] for block in blocks]))
    best = max(auroc(y[600:], block[600:, 0]) for block in blocks)
    assert scores["stacking"] > best + 0.02
    assert scores["stacking"] > scores["average"] + 0.05
    assert scores["rank"] > scores["average"] + 0.05


def test_stacking_scores_any_pattern_by_a_model_of_what_is_there() -> None:
    rng = np.random.default_rng(1)
    y = (rng.random(400) < 0.4).astype(np.float64)
    blocks = [expit(k * y + rng.normal(size=400))[:, None] for k in (2.0, 1.0, 0.5, 0.5)]
    fusion = fitted("stacking", blocks, y)  # complete: patterns of 4, 3 and 1 are fitted
    lost = np.full((400, 1), np.nan)
    alone = fusion.apply([blocks[0], lost, lost, lost])
    assert np.array_equal(np.argsort(alone), np.argsort(blocks[0][:, 0]))
    assert alone.mean() == pytest.approx(y.mean(), abs=1e-3)  # calibrated on what it was fitted to
    # Two of four were never seen: the better of the models of one is taken.
    assert np.array_equal(fusion.apply([blocks[0], lost, lost, blocks[3]]), alone)
    blocks[3][:] = np.nan
    with pytest.raises(NotEnoughDataError, match="lack member 1, 2, 3: too few"):
        fitted("stacking", blocks, y).apply([lost, lost, lost, blocks[0]])


def test_attention_learns_from_both_members_and_knows_too_few_patients() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(900) < 0.4).astype(np.float64)
    x = [rng.normal(size=(900, 4)).astype(np.float32) for _ in range(2)]
    for block in x:
        block[:, 0] += 1.5 * y.astype(np.float32)
    blocks = [block * 100 + 7 for block in x]  # scale and offset are learned away
    fusion = Attention({"width": 16, "epochs": 12, "learning_rate": 0.01})
    fusion.fit([block[:600] for block in blocks], y[:600], groups=np.arange(600) // 2)
    both = auroc(y[600:], fusion.apply([block[600:] for block in blocks]))
    lost = np.full((300, 4), np.nan, np.float32)
    one = auroc(y[600:], fusion.apply([blocks[0][600:], lost]))
    assert both > one + 0.03
    assert one > 0.8
    with pytest.raises(NotEnoughDataError, match="Class 1 has 1 patients"):
        fusion.fit([block[:9] for block in x], np.repeat([0.0, 1.0], [8, 1]), groups=np.arange(9))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("pca", {"dims": 0}, "'dims' of pca is 0"),
        ("cca", {"shrinkage": 2.0}, "shrinkage from 0 to 1"),
        ("stacking", {"C": 0.0}, "'C' of stacking is 0.0; it must be above 0"),
        ("attention", {"member_dropout": 1.0}, "'member_dropout' of attention is 1.0"),
        ("attention", {"validation": 0.0}, "must be between 0 and 1"),
        ("attention", {"epochs": 0}, "'epochs' of attention is 0; it must be above 0"),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    name: str, params: dict[str, int | float | str], message: str
) -> None:
    blocks, y = blocks_for(name)
    with pytest.raises(UsageError, match=message):
        fusions.get(name)(params).fit(blocks, y, groups=np.arange(len(y)))


@pytest.mark.parametrize("name", [name for name in fusions.names() if name != "average"])
def test_what_cannot_be_fitted_is_said(name: str) -> None:
    if "survival" not in fusions.get(name).targets:
        with pytest.raises(UsageError, match="cannot fit a survival target"):
            fusions.get(name)(target="survival")
    blocks, y = blocks_for(name)
    blocks[1][:] = np.nan
    if name != "stacking":  # which fits a model of the members that are there
        with pytest.raises(EcgStoreError, match="Only 0 training records"):
            fitted(name, blocks, y)
