"""Forward selections: mrmr, ib-jmi, hsic-lasso find what is informative and not yet said."""

from __future__ import annotations

import numpy as np
import pytest
from scoring import context_of, hidden, mlp

from edgeprune import information
from edgeprune.criteria import score
from edgeprune.criteria.hsic_lasso import entries
from edgeprune.criteria.mrmr import TWIN_NATS, redundancy
from edgeprune.criteria.values import by_pick, group_values


def clues(samples=1500, seed=0):
    """Label of two bits. Units: bit one, its copy, bit two, noise, noise, a weak view of bit one."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (samples, 2))
    x = rng.normal(size=(samples, 6)).astype(np.float32) * 0.3
    x[:, 0] += bits[:, 0]
    x[:, 1] = x[:, 0] + 0.02 * rng.normal(size=samples)
    x[:, 2] += 0.9 * bits[:, 1]
    x[:, 5] = x[:, 5] * 3 + bits[:, 0]
    y = bits @ [2, 1]
    net = mlp(np.eye(6, dtype=np.float32), np.random.default_rng(1).normal(size=(4, 6)))
    return context_of(net, x + 2, y)  # + 2: nothing is cut off by the ReLU


@pytest.mark.parametrize("name", ["mrmr", "ib-jmi"])
def test_the_second_clue_comes_before_a_copy_of_the_first(name):
    """Bit one's unit and bit two's are the last to go; the copy goes before both."""
    context = clues()
    rank = score(name, context).rank[hidden(context)]
    assert rank[2] >= 4
    assert max(rank[0], rank[1]) >= 4
    assert min(rank[0], rank[1]) < min(rank[2], max(rank[0], rank[1]))


def test_hsic_lasso_sends_noise_away_first():
    """Pure noise goes before anything that tells of the label; a twin may enter early, as lassos do."""
    context = clues()
    rank = score("hsic-lasso", context).rank[hidden(context)]
    assert max(rank[3], rank[4]) < min(rank[0], rank[1], rank[2])


def test_ib_jmi_follows_brute_force_counts():
    """Picks and worths equal a selection on joint tables counted one by one."""
    context = clues(400)
    labels = context.statistics.labels
    (values,) = group_values(context, 0)
    codes = information.quantize(values, bins=6)
    n, picked, total, least = len(labels), [], np.zeros(6), np.inf
    found = score("ib-jmi", context)
    order = np.argsort(-found.rank[hidden(context)]).tolist()
    worth = found.component[hidden(context)][order]
    for step in range(6):
        alone = information.mutual_information(codes, labels)
        value = total / len(picked) if picked else alone
        best = max((i for i in range(6) if i not in picked), key=lambda i, v=value: v[i])
        assert order[step] == best
        least = min(least, value[best])  # what was picked earlier is worth no less
        assert worth[step] == pytest.approx(least, abs=1e-9)
        picked.append(best)
        for i in range(6):
            pair = codes.codes[:, best].astype(int) * 7 + codes.codes[:, i]
            table = np.zeros((49, 4), np.uint32)
            np.add.at(table, (pair, labels), 1)
            p = table / n
            seen = p > 0
            outer = p.sum(1, keepdims=True) * p.sum(0)
            cells = seen.sum() - (p.sum(1) > 0).sum() - (p.sum(0) > 0).sum() + 1
            total[i] += (p[seen] * np.log(p[seen] / outer[seen])).sum() - cells / (2 * n)


def test_theta_rewards_bits_beyond_the_label():
    """With a large θ ib-jmi keeps noisy units that it lets go first at θ = 0."""
    from dataclasses import replace

    context = clues()
    noise = hidden(context)[[3, 4, 5]]
    plain = score("ib-jmi", context).rank[noise].sum()
    assert score("ib-jmi", replace(context, theta=20.0)).rank[noise].sum() > plain


def test_copula_information_is_that_of_the_ranks_correlation():
    """−½·log(1−ρ²) for a bivariate normal, whatever monotone map was applied to either side."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=20_000)
    b = 0.8 * a + 0.6 * rng.normal(size=20_000)
    c = rng.normal(size=20_000)
    nats = redundancy(np.stack([np.exp(a), b**3, c, np.ones(20_000), c + 1], 1).astype("f4"))
    assert nats[0, 1] == pytest.approx(-0.5 * np.log(1 - 0.64), abs=0.02)
    assert nats[0, 2] < 0.001
    assert (nats[3] == 0).all()
    assert nats[2, 4] == TWIN_NATS
    assert (np.diag(nats) == 0).all()


def test_lasso_entries_follow_the_path():
    """Orthogonal members enter where λ meets their correlation; a twin enters after a weaker newcomer."""
    target = np.array([0.8, 0.5, 0.1, -0.2])
    found = entries(np.eye(4), target)
    np.testing.assert_allclose(found[:3], target[:3], rtol=0.16)
    assert (np.diff(found) < 0).all()
    gram = np.array([[1.0, 0.999, 0.0], [0.999, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = entries(gram, np.array([0.8, 0.79, 0.3]))
    assert found[0] > found[2] > found[1]


def test_scores_of_picks_fall_and_silent_members_come_last():
    """by_pick is strictly falling along the picks, whatever the worths do."""
    scores = by_pick([2, 0, 1], [0.5, 0.7, -0.1], np.array([False, False, False, True]))
    assert scores[2] > scores[0] > scores[1] > scores[3]


def test_vib_gates_let_the_useful_unit_through():
    """The unit that carries the label keeps more nats than one of pure noise with equal weights."""
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(size=(600, 4))).astype(np.float32)
    head = np.zeros((2, 4), np.float32)
    head[0, 0], head[1, 0], head[0, 1], head[1, 1] = 4, -4, 0.01, 0.01
    y = (x[:, 0] < 0.05).astype(np.int64)
    context = context_of(mlp(np.eye(4, dtype=np.float32), head), x, y)
    found = score("vib", context).component[hidden(context)]
    assert found[0] > found[1]
    assert (found > 0).all()


def test_fpgm_removes_what_the_others_surround():
    """The filter in the middle of the group goes first, the outlier last."""
    weights = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [0.05, 0.0], [6, 6]], np.float32)
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    context = context_of(mlp(weights, np.ones((3, 6), np.float32)), x)
    rank = score("fpgm", context).rank[hidden(context)]
    assert rank[4] == 0
    assert rank[5] == 5
