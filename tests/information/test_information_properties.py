"""What must hold for every table, whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeprune import information

FEW = settings(max_examples=60, deadline=None)
FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)


@st.composite
def tables(draw: st.DrawFn) -> np.ndarray:
    """Counts (1, bins, classes) with at least two samples."""
    shape = draw(st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 6)))
    table = draw(hnp.arrays(np.uint32, shape, elements=st.integers(0, 50)))
    table[0, 0, 0] += 2
    return table


@st.composite
def samples(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Activations (samples, 3), labels in 0..3."""
    n = draw(st.integers(2, 60))
    x = draw(hnp.arrays(np.float32, (n, 3), elements=FLOATS | st.just(0.0)))
    y = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3)))
    return x, y


@FEW
@given(tables())
def test_information_is_symmetric(table: np.ndarray):
    """Swapping bins and classes changes nothing, under every correction."""
    for correction in information.estimators.CORRECTIONS:
        one = information.mutual_information(table, correction=correction)
        two = information.mutual_information(table.transpose(0, 2, 1), correction=correction)
        np.testing.assert_allclose(one, two, atol=1e-12)


@FEW
@given(tables(), st.randoms(use_true_random=False))
def test_relabelling_changes_nothing(table: np.ndarray, random):
    """Permuting the names of bins and classes changes neither I, H, nor the p-value."""
    bins, classes = list(range(table.shape[1])), list(range(table.shape[2]))
    random.shuffle(bins)
    random.shuffle(classes)
    other = np.ascontiguousarray(table[:, bins][:, :, classes])
    np.testing.assert_allclose(
        information.mutual_information(table), information.mutual_information(other), atol=1e-12
    )
    np.testing.assert_allclose(information.entropy(table), information.entropy(other), atol=1e-12)
    np.testing.assert_allclose(
        information.p_values(table, method="chi2"), information.p_values(other, method="chi2"), atol=1e-10
    )


@FEW
@given(tables(), st.integers(2, 5))
def test_duplicated_samples_leave_the_plug_in_alone(table: np.ndarray, times: int):
    """Counting every sample several times changes no plug-in value."""
    for function in (information.mutual_information, information.entropy, information.conditional_entropy):
        once = function(table, correction="none")
        np.testing.assert_allclose(function(table * np.uint32(times), correction="none"), once, atol=1e-12)


@FEW
@given(tables(), st.data())
def test_merging_codes_never_gains_information(table: np.ndarray, data: st.DataObject):
    """Data processing: joining bins, or classes, cannot raise the plug-in information."""
    before = information.mutual_information(table, correction="none")[0]
    to = data.draw(st.lists(st.integers(0, 3), min_size=table.shape[1], max_size=table.shape[1]))
    joined = np.zeros((1, 4, table.shape[2]), np.uint32)
    np.add.at(joined[0], to, table[0])
    assert information.mutual_information(joined, correction="none")[0] <= before + 1e-12


@FEW
@given(tables())
def test_entropies_bound_the_information(table: np.ndarray):
    """0 <= I <= min(H(T), H(Y)), I + H(T|Y) = H(T), and the plug-in equals the definition."""
    stats = information.table_statistics(table)
    value = information.mutual_information(table, correction="none")[0]
    assert -1e-12 <= value <= min(stats.entropy[0], stats.class_entropy[0]) + 1e-12
    rest = information.conditional_entropy(table, correction="none")[0]
    assert value + rest == pytest.approx(stats.entropy[0], abs=1e-12)
    assert value == pytest.approx(reference.information(table[0]), abs=1e-11)


@FEW
@given(samples(), st.integers(2, 40))
def test_codes_are_order_preserving_and_exact(data: tuple[np.ndarray, np.ndarray], bins: int):
    """For any float32 values, codes equal searchsorted, on every instruction set."""
    x, _ = data
    codes = information.quantize(x, bins)
    assert np.array_equal(codes.codes, reference.codes(x, codes.edges.thresholds))
    order = np.argsort(x[:, 0], kind="stable")
    assert (np.diff(codes.codes[order, 0].astype(int)) >= 0).all()


@FEW
@given(samples(), st.data())
def test_merged_parts_equal_the_whole(data: tuple[np.ndarray, np.ndarray], draw: st.DataObject):
    """Any split into batches, in any order, over any number of accumulators: the same bits."""
    x, y = data
    edges = information.find_edges(x, 8)
    whole = information.JointCounts(edges, 4).update(x, y)
    owner = draw.draw(hnp.arrays(np.int64, len(x), elements=st.integers(0, 2)))
    order = draw.draw(st.permutations(range(len(x))))
    parts = [information.JointCounts(edges, 4) for _ in range(3)]
    for i in order:
        parts[owner[i]].update(x[i : i + 1], y[i : i + 1])
    merged = parts[2].merge(parts[0]).merge(parts[1])
    assert merged.samples == len(x)
    assert merged.counts.tobytes() == whole.counts.tobytes()
    assert np.array_equal(whole.counts, information.joint_counts(information.encode(x, edges), y, 4))


@FEW
@given(samples())
def test_edges_do_not_depend_on_the_order_of_samples(data: tuple[np.ndarray, np.ndarray]):
    """Quantile edges are a function of the multiset of values."""
    x, _ = data
    assert information.find_edges(x, 9) == information.find_edges(x[::-1], 9)


@FEW
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(4, 40), st.just(2)), elements=st.integers(-3, 3).map(float)),
    st.floats(0.1, 10),
)
def test_rank_estimates_ignore_monotone_maps(x: np.ndarray, scale: float):
    """Copula scores depend on ranks alone."""
    np.testing.assert_array_equal(information.normal_scores(x), information.normal_scores(np.exp(x * scale)))
