import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from muonlab.measure import spectra
from muonlab.measure.spectra import NAMES, Spectrum, bootstrap, jackknife

seeds = st.integers(0, 10_000)


def spectrum_of(*batches):
    spectrum = Spectrum()
    for batch in batches:
        spectrum.update(batch)
    return spectrum.result()


def with_singular_values(values, num_examples, seed=0):
    """Return (n, D) with exactly these singular values, and orthogonal factors."""
    generator = torch.Generator().manual_seed(seed)
    U = torch.linalg.qr(torch.randn(num_examples, len(values), generator=generator, dtype=torch.float64))[0]
    V = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))[0]
    return U * torch.as_tensor(values, dtype=torch.float64) @ V


def by_svd(matrix):
    """Return the five counts from numpy's singular values, as they are defined."""
    values = np.linalg.svd(matrix, compute_uv=False)
    counts = [np.exp(stats.entropy(values**2)), np.exp(stats.entropy(values))]
    counts += [(values**2).sum() / values[0] ** 2, (values**2).sum() ** 2 / (values**4).sum()]
    return [*counts, np.linalg.matrix_rank(matrix)]


def listed(ranks):
    return [getattr(ranks, name) for name in NAMES]


@pytest.mark.parametrize(("shape", "mean"), [((200, 12), 4.0), ((9, 12), 0.0), ((1, 12), 4.0)])
def test_all_counts_are_those_of_numpys_svd(shape, mean):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(*shape, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, 12) + mean
    found = spectrum_of(*matrix.split(7))
    np.testing.assert_allclose(listed(found.raw.ranks), by_svd(matrix.numpy()), rtol=1e-6)
    values = np.zeros(12)
    values[: min(shape)] = np.linalg.svd(matrix.numpy(), compute_uv=False)
    np.testing.assert_allclose(found.raw.singular_values, values, atol=4e-7 * values[0])
    if shape[0] > 1:
        centred = matrix.numpy() - matrix.numpy().mean(0)
        np.testing.assert_allclose(listed(found.centred.ranks), by_svd(centred), rtol=1e-5)
    else:
        assert listed(found.centred.ranks) == [0.0] * 5
    assert (found.num_examples, found.width) == shape


def test_known_spectra_have_closed_forms():
    ones = spectrum_of(torch.eye(6, dtype=torch.float64)).raw.ranks
    assert listed(ones) == pytest.approx([6.0] * 5)
    rank_one = spectrum_of(torch.outer(torch.arange(1.0, 50.0), torch.tensor([1.0, -2.0, 0.5])))
    assert listed(rank_one.raw.ranks) == pytest.approx([1.0] * 5, rel=1e-6)
    assert listed(rank_one.centred.ranks) == pytest.approx([1.0] * 5, rel=1e-6)
    two = spectrum_of(with_singular_values([2.0, 1.0], 10)).raw.ranks
    # Shares of variance (.8, .2), and of singular values (2/3, 1/3).
    entropy = 0.8 * np.log(1 / 0.8) + 0.2 * np.log(5)
    other = 2 / 3 * np.log(3 / 2) + 1 / 3 * np.log(3)
    assert listed(two) == pytest.approx([np.exp(entropy), np.exp(other), 1.25, 25 / 17, 2.0])
    assert listed(spectrum_of(torch.zeros(4, 3)).raw.ranks) == [0.0] * 5


@given(seed=seeds, scale=st.floats(1e-6, 1e6))
@settings(max_examples=25, deadline=None)
def test_scale_and_rotation_change_no_count_and_bounds_hold(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    width, rank = 6, seed % 6 + 1
    values = torch.rand(rank, generator=generator, dtype=torch.float64) + 0.01
    matrix = with_singular_values([*values, *[0.0] * (width - rank)], 20, seed)
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0]
    first, second = spectrum_of(matrix).raw.ranks, spectrum_of(scale * matrix @ turn).raw.ranks
    assert listed(first) == pytest.approx(listed(second), rel=1e-6)
    assert first.numerical_rank == rank
    for count in listed(first)[:4]:
        assert 1 - 1e-9 <= count <= rank * (1 + 1e-6)
    assert first.effective_rank <= first.effective_rank_sigma * (1 + 1e-9)
    assert first.stable_rank <= first.participation_ratio * (1 + 1e-9)
    assert first.participation_ratio <= first.effective_rank * (1 + 1e-9)


@given(seed=seeds, cuts=st.lists(st.integers(1, 59), max_size=4, unique=True))
@settings(max_examples=20, deadline=None)
def test_batches_and_merges_in_any_order_are_the_whole(seed, cuts):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(60, 4, generator=generator, dtype=torch.float64) + 1000.0
    whole = spectrum_of(matrix)
    parts = []
    for batch in torch.tensor_split(matrix, sorted(cuts)):
        parts.append(Spectrum())
        parts[-1].update(batch)
    merged = Spectrum()
    for part in reversed(parts):
        merged.merge(part)
    found = merged.result()
    assert found.num_examples == 60
    assert [part.result().num_examples for part in parts] == np.diff([0, *sorted(cuts), 60]).tolist()
    assert listed(found.raw.ranks) == pytest.approx(listed(whole.raw.ranks), rel=1e-6)
    assert listed(found.centred.ranks) == pytest.approx(listed(whole.centred.ranks), rel=1e-6)


@pytest.mark.parametrize("ratio", [1e-2, 1e-6])
def test_what_the_gram_costs_small_singular_values(ratio):
    """Relative error at most eps (sigma_1 / sigma)^2 times a small factor, and none left below sqrt(D eps)."""
    matrix = with_singular_values([1.0, 0.5, ratio, 1e-9], 500)
    found = spectrum_of(*matrix.split(50)).raw.singular_values
    assert found[2].item() == pytest.approx(ratio, rel=20 * spectra.EPS / ratio**2)
    assert found[3] == 0


def test_a_mean_a_million_times_the_spread_costs_no_digits_of_the_centred_spectrum():
    """The Gram less n mean mean' would lose 12 of 16 digits."""
    steps = torch.randint(-4, 5, (400, 3), generator=torch.Generator().manual_seed(0)).double() * torch.tensor(
        [4, 2, 1]
    )
    far, near = spectrum_of(*(steps + 2.0**22).split(16)), spectrum_of(*steps.split(16))
    torch.testing.assert_close(far.centred.singular_values, near.centred.singular_values, rtol=1e-9, atol=0)


def test_the_numerical_rank_is_that_of_the_dtype_of_the_states():
    matrix = with_singular_values([1.0, 0.1, 1e-5], 1000)
    assert spectrum_of(matrix).raw.ranks.numerical_rank == 3
    single = spectrum_of(matrix.float()).raw
    assert single.ranks.numerical_rank == 2 == np.linalg.matrix_rank(matrix.float().numpy())
    assert spectrum_of(matrix[:10], matrix[10:].bfloat16()).raw.ranks.numerical_rank == 0  # 1000 eps is more than 1


@pytest.mark.parametrize("centred", [True, False])
def test_the_interval_is_the_basic_one_of_numpys_svds_of_the_resamples(centred):
    matrix = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2

    def counts(rows):
        return by_svd((rows - rows.mean(0) if centred else rows).numpy())

    options = {"centred": centred, "resamples": 30, "level": 0.9}
    found, generator = bootstrap(matrix, **options, seed=5), torch.Generator().manual_seed(5)
    drawn = [counts(matrix[torch.randint(40, (40,), generator=generator)]) for _ in range(30)]
    value, (low, high) = counts(matrix), np.quantile(drawn, [0.05, 0.95], axis=0)
    for k, name in enumerate(NAMES):
        each = found[name]
        np.testing.assert_allclose(each, [value[k], 2 * value[k] - high[k], 2 * value[k] - low[k]], atol=1e-9)
    assert bootstrap(matrix, **options, seed=5) == found != bootstrap(matrix, **options, seed=6)


def test_the_jackknife_is_that_of_leaving_out_each_part():
    parts = torch.randn(10, 40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    accumulated = [Spectrum() for _ in parts]
    for spectrum, part in zip(accumulated, parts, strict=True):
        spectrum.update(part)
    left = np.array([by_svd(torch.cat([*parts[:g], *parts[g + 1 :]]).numpy()) for g in range(10)])
    expected = np.stack([by_svd(parts.flatten(0, 1).numpy()), np.sqrt(9 * left.var(0))])
    found = jackknife(accumulated, centred=False)
    np.testing.assert_allclose([found[name] for name in NAMES], expected.T, atol=1e-9)


def test_bad_states_get_a_message_and_are_not_added():
    spectrum = Spectrum()
    with pytest.raises(ValueError, match="call update first"):
        spectrum.result()
    spectrum.update(torch.eye(3))
    other = Spectrum()
    other.update(torch.eye(2))
    for bad, message in (
        (torch.zeros(3), r"hidden states \(3,\)"),
        (torch.zeros(2, 3, dtype=torch.long), "int64"),
        (torch.zeros(2, 4), "those before had 3"),
        (torch.full((2, 3), torch.inf), "not all are finite"),
    ):
        with pytest.raises(ValueError, match=message):
            spectrum.update(bad)
    with pytest.raises(ValueError, match="widths 3 and 2"):
        spectrum.merge(other)
    assert spectrum.result().num_examples == 3
    with pytest.raises(ValueError, match="1 parts"):
        jackknife([spectrum])
    with pytest.raises(ValueError, match="resamples=1"):
        bootstrap(torch.eye(3), resamples=1)


def test_the_example_of_the_docstring_runs():
    failed, attempted = doctest.testmod(spectra, extraglobs={"torch": torch})
    assert attempted > 0
    assert not failed
