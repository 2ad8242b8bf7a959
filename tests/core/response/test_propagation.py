"""Propagation against a plain loop over cells, targets and terms."""

from __future__ import annotations

import numpy as np
import pytest

from spacetravlr._core.design import Kind, Signals, Targets, Terms
from spacetravlr._core.response.propagation import CoefficientChunk, baseline, in_memory, propagate
from spacetravlr._core.response.start import InputChange, Workspace, begin, roles

# 0 TF (also a target), 1 TF and ligand, 2 ligand (secreted and contact), 3 receptor, 4 receptor and ligand,
# 5 target only, 6 target that is a ligand too, 7 no role and no model
N_CELLS, N_GENES = 12, 8
SIGNALS = Signals(np.array([1, 2, 2, 4, 6]), np.array([False, False, True, False, False]))
TERMS = Terms(
    np.array([Kind.TF, Kind.TF, Kind.LR, Kind.LR, Kind.LR, Kind.LR, Kind.TFL, Kind.TFL, Kind.LR]),
    np.array([0, 1, 3, 4, 3, 3, 0, 1, 4]),
    np.array([-1, -1, 0, 1, 2, 3, 1, 3, 4]),
)
TARGETS = Targets(
    np.array([5, 0, 6, 3]),
    np.array([0, 9, 12, 16, 18]),
    np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 5, 7, 0, 2, 3, 6, 0, 8]),
)


class DenseField:
    """Received signals through explicit weights."""

    def __init__(self, secreted, contact):
        self.secreted, self.contact = secreted, contact

    def apply(self, values, contact_mask):
        # one cell after the other, so that a column does not depend on its neighbours as it does with BLAS
        heard = np.zeros_like(values)
        for i, row in enumerate(values):
            heard += np.where(contact_mask, self.contact[:, i : i + 1], self.secreted[:, i : i + 1]) * row
        return heard


@pytest.fixture
def tissue():
    rng = np.random.default_rng(0)
    place = rng.uniform(0, 10, (N_CELLS, 2))
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    field = DenseField(np.exp(-(distance**2) / 8) * (distance < 6), np.exp(-(distance**2)) * (distance < 2))
    expression = rng.uniform(0, 2, (N_CELLS, N_GENES)) * (rng.uniform(size=(N_CELLS, N_GENES)) > 0.2)
    return baseline(expression, SIGNALS, field)


@pytest.fixture
def betas():
    return np.random.default_rng(1).normal(scale=0.15, size=(N_CELLS, TARGETS.n_columns))


def change(tissue, wanted, cells=slice(None)):
    """Input change that sets genes to a value (or a fold, as a callable) in some cells."""
    delta = np.zeros((N_CELLS, len(wanted)))
    for column, (gene, value) in enumerate(wanted.items()):
        base = tissue.expression[:, gene]
        delta[cells, column] = ((value(base) if callable(value) else value) - base)[cells]
    return InputChange(np.array(list(wanted)), delta)


def twin(tissue, betas, given, n_propagation, derivative):
    """how-it-works, section 5, written out one number at a time."""
    x0, l0 = tissue.expression, tissue.received
    d_in = np.zeros_like(x0)
    d_in[:, given.genes] = given.change
    d, x_before, l_before = d_in.copy(), x0, l0
    for _ in range(n_propagation):
        x = x0 + d
        heard = np.zeros_like(l0)
        for s in range(len(SIGNALS)):
            weights = tissue.field.contact if SIGNALS.contact[s] else tissue.field.secreted
            for j in range(N_CELLS):
                heard[j, s] = sum(weights[j, i] * x[i, SIGNALS.ligand[s]] for i in range(N_CELLS))
        new = np.zeros_like(x0)
        for j in range(N_CELLS):
            for t in range(len(TARGETS)):
                for k, m in enumerate(TARGETS.terms_of(t)):
                    b, g, s = betas[j, TARGETS.columns_of(t)][k + 1], TERMS.gene[m], TERMS.signal[m]
                    if s < 0:
                        dz = x[j, g] - x0[j, g]
                    elif derivative == "exact":
                        dz = x[j, g] * heard[j, s] - x0[j, g] * l0[j, s]
                    else:
                        passes = TERMS.kind[m] == Kind.TFL or x0[j, g] > 0 or x_before[j, g] > 0
                        dz = l_before[j, s] * (x[j, g] - x0[j, g]) * passes
                        dz += x_before[j, g] * (heard[j, s] - l0[j, s])
                    new[j, TARGETS.gene[t]] += b * dz
        new = np.where(d_in != 0, d_in, new)
        d = np.clip(x0 + new, 0, x0.max(axis=0)) - x0
        x_before, l_before = x, heard
    return np.where(d_in != 0, d_in, d)


def full(tissue, changes, p=0):
    out = np.zeros_like(tissue.expression)
    out[:, changes.genes] = changes.values[:, :, p]
    return out


WANTED = {
    "knockout": {0: 0.0},
    "overexpression": {1: 1.9},
    "partial": {0: lambda x: 0.5 * x},
    "combinatorial": {0: 0.0, 4: 1.5},
    "ligand and receptor": {4: 0.0},
    "TF and ligand": {1: 0.0},
    "secreted and contact": {2: 1.5},
    "target": {5: 0.0},
    "no role": {7: 1.0},
    "above the maximum": {0: 5.0},
}


@pytest.mark.parametrize("derivative", ["product_rule", "exact"])
@pytest.mark.parametrize("name", WANTED)
def test_propagation_is_the_plain_loop(tissue, betas, name, derivative):
    for cells in (slice(None), np.array([1, 4, 7])):
        given = change(tissue, WANTED[name], cells)
        for n_propagation in (1, 2, 3, 4):
            found = propagate(
                tissue,
                TERMS,
                TARGETS,
                coefficients=in_memory(betas),
                inputs=[given],
                n_propagation=n_propagation,
                derivative=derivative,
            )
            expected = twin(tissue, betas, given, n_propagation, derivative)
            np.testing.assert_allclose(full(tissue, found), expected, atol=1e-12)


def _with_receptors(betas):
    """Every target has genes 3, 4 (receptors) and 7 (no other role) by themselves too, as adjustment."""
    alone = np.array([3, 4, 7])
    terms = Terms(
        np.concatenate([TERMS.kind, np.full(3, Kind.RECEPTOR)]),
        np.concatenate([TERMS.gene, alone]),
        np.concatenate([TERMS.signal, np.full(3, -1)]),
    )
    rows = [np.concatenate([TARGETS.terms_of(t), len(TERMS) + np.arange(3)]) for t in range(len(TARGETS))]
    targets = Targets(TARGETS.gene, np.cumsum([0, *map(len, rows)]), np.concatenate(rows))
    added = np.random.default_rng(2).normal(scale=0.3, size=(len(betas), len(TARGETS), 3))
    parts = [p for t in range(len(TARGETS)) for p in (betas[:, TARGETS.columns_of(t)], added[:, t])]
    return terms, targets, np.hstack(parts)


@pytest.mark.parametrize("derivative", ["product_rule", "exact"])
@pytest.mark.parametrize("name", WANTED)
def test_nothing_passes_through_adjustment(tissue, betas, name, derivative):
    terms, targets, wider = _with_receptors(betas)
    given = [change(tissue, WANTED[name])]
    found = propagate(tissue, terms, targets, coefficients=in_memory(wider), inputs=given, derivative=derivative)
    plain = propagate(tissue, TERMS, TARGETS, coefficients=in_memory(betas), inputs=given, derivative=derivative)
    np.testing.assert_array_equal(full(tissue, found), full(tissue, plain))


@pytest.mark.parametrize("name", ["ligand and receptor", "no role"])
def test_adjustment_that_is_taken_in_acts_like_a_regulator(tissue, betas, name):
    terms, targets, wider = _with_receptors(betas)
    given = [change(tissue, WANTED[name])]

    def run(terms):
        found = propagate(tissue, terms, targets, coefficients=in_memory(wider), inputs=given)
        return full(tissue, found)

    assert roles(terms, SIGNALS).tolist() == roles(TERMS, SIGNALS).tolist()
    assert roles(terms.with_adjustment(), SIGNALS).tolist() == [*roles(TERMS, SIGNALS), 7]
    as_regulators = Terms(np.where(terms.kind == Kind.RECEPTOR, Kind.TF, terms.kind), terms.gene, terms.signal)
    np.testing.assert_array_equal(run(terms.with_adjustment()), run(as_regulators))
    assert np.abs(run(terms.with_adjustment()) - run(terms)).max() > 0.1


def test_a_change_reaches_cells_that_were_not_perturbed(tissue, betas):
    given = change(tissue, {2: 1.9}, np.array([0]))
    found = propagate(tissue, TERMS, TARGETS, coefficients=in_memory(betas), inputs=[given])
    assert np.abs(full(tissue, found)[1:]).max() > 1e-3


@pytest.mark.parametrize("size", [2, 6, 7, 12])
def test_a_batch_gives_to_the_last_bit_what_each_gives_alone(tissue, betas, size):
    wanted = (list(WANTED.values()) * 2)[:size]
    inputs = [change(tissue, w) for w in wanted]
    together = propagate(tissue, TERMS, TARGETS, coefficients=in_memory(betas), inputs=inputs)
    for p, given in enumerate(inputs):
        alone = propagate(tissue, TERMS, TARGETS, coefficients=in_memory(betas), inputs=[given])
        np.testing.assert_array_equal(full(tissue, together, p), full(tissue, alone))


def test_changes_that_come_and_go():
    """A feedback through the lower bound: in some rounds a TF and a ligand have no change at all, then one again."""
    activator, feedback, ligand, receptor, by_tf, by_pair = range(6)
    signals = Signals(np.array([ligand]), np.array([False]))
    terms = Terms(
        np.array([Kind.TF, Kind.TF, Kind.TF, Kind.LR]),
        np.array([activator, ligand, feedback, receptor]),
        np.array([-1, -1, -1, 0]),
    )
    targets = Targets(
        np.array([feedback, ligand, by_tf, by_pair]), np.array([0, 2, 3, 4, 5]), np.array([0, 1, 2, 1, 3])
    )
    expression = np.zeros((N_CELLS, 6))
    expression[:, receptor] = 1
    tissue = baseline(expression, signals, DenseField(np.eye(N_CELLS), np.eye(N_CELLS)))
    tissue.maximum[:] = 100
    betas = np.tile([0.0, 1, -1, 0, 2, 0, 1, 0, 1], (N_CELLS, 1))  # an intercept before the terms of each target
    given = [InputChange(np.array([activator]), np.ones((N_CELLS, 1)))]

    fed_back, sent = [0.0], [0.0]
    for n_propagation in range(1, 12):
        found = propagate(
            tissue, terms, targets, coefficients=in_memory(betas), inputs=given, n_propagation=n_propagation
        )
        passed_on = sent[-1]
        fed_back, sent = [*fed_back, max(0.0, 1 - sent[-1])], [*sent, 2 * fed_back[-1]]
        expected = [1, fed_back[-1], sent[-1], 0, passed_on, passed_on]
        np.testing.assert_array_equal(full(tissue, found), np.tile(expected, (N_CELLS, 1)))
    assert sent.count(0.0) > 3
    assert sent.count(2.0) > 3


def test_memory_that_is_used_again_leaves_no_trace(tissue, betas):
    workspace = Workspace()
    everything = [change(tissue, w) for w in WANTED.values()]
    # a batch, a smaller one, one with more genes and one of other precision, each after what the others left
    single = baseline(tissue.expression.astype(np.float32), SIGNALS, tissue.field)
    runs = [(tissue, everything), (tissue, everything[:2]), (tissue, everything[-1:]), (single, everything[:3])]
    for where, inputs in runs * 2:
        for n_propagation in (1, 2, 4):
            found, fresh = (
                propagate(
                    where,
                    TERMS,
                    TARGETS,
                    coefficients=in_memory(betas.astype(where.expression.dtype)),
                    inputs=inputs,
                    n_propagation=n_propagation,
                    workspace=memory,
                )
                for memory in (workspace, None)
            )
            np.testing.assert_array_equal(found.values, fresh.values)


def test_blocks_of_cells_and_targets_do_not_matter(tissue, betas):
    def read(targets, _):
        for cells in (slice(0, 5), slice(5, N_CELLS)):
            for t in targets:
                columns = TARGETS.columns_of(t)
                yield CoefficientChunk(cells, np.array([t]), columns.start, betas[cells, columns])

    given = [change(tissue, WANTED["combinatorial"])]
    whole = propagate(tissue, TERMS, TARGETS, coefficients=in_memory(betas), inputs=given)
    parts = propagate(tissue, TERMS, TARGETS, coefficients=read, inputs=given)
    np.testing.assert_array_equal(whole.values, parts.values)


def test_permuting_cells_permutes_the_result(tissue, betas):
    order = np.random.default_rng(4).permutation(N_CELLS)
    field = DenseField(*(w[np.ix_(order, order)] for w in (tissue.field.secreted, tissue.field.contact)))
    moved = baseline(tissue.expression[order], SIGNALS, field)
    given = change(tissue, {0: 0.0, 2: 1.0})
    here = propagate(tissue, TERMS, TARGETS, coefficients=in_memory(betas), inputs=[given])
    there = propagate(
        moved,
        TERMS,
        TARGETS,
        coefficients=in_memory(betas[order]),
        inputs=[InputChange(given.genes, given.change[order])],
    )
    np.testing.assert_allclose(here.values[order], there.values, atol=1e-12)


@pytest.mark.parametrize("wanted", [{1: 1.0}, {4: 1.0}, {2: 1.0, 3: 1.0}])
def test_product_rule_and_exact_agree_to_first_order(tissue, betas, wanted):
    gaps = []
    for dose in (0.02, 0.01, 0.005):
        delta = np.full((N_CELLS, len(wanted)), dose)
        # away from the bounds, where clipping is not smooth
        inner = baseline(tissue.expression + 1, SIGNALS, tissue.field)
        inner.maximum[:] = 100
        given = [InputChange(np.array(list(wanted)), delta)]
        results = [
            full(
                inner,
                propagate(inner, TERMS, TARGETS, coefficients=in_memory(betas), inputs=given, derivative=derivative),
            )
            for derivative in ("product_rule", "exact")
        ]
        gaps.append(np.abs(results[0] - results[1]).max())
    assert gaps[0] > 1e-9
    assert 3.4 < gaps[0] / gaps[1] < 4.7
    assert 3.4 < gaps[1] / gaps[2] < 4.7


def test_the_knockout_of_a_receptor_lasts(tissue):
    """Its derivative is zero once it is gone, but its targets have lost its signal for good."""
    terms = Terms(np.array([Kind.LR]), np.array([3]), np.array([0]))
    targets = Targets(np.array([5]), np.array([0, 1]), np.array([0]))
    betas = np.full((N_CELLS, 2), 0.01)
    given = [change(tissue, {3: 0.0})]
    rounds = [
        propagate(tissue, terms, targets, coefficients=in_memory(betas), inputs=given, n_propagation=r, derivative=d)
        for r in (1, 4)
        for d in ("product_rule", "exact")
    ]
    lost = -0.01 * tissue.expression[:, 3] * tissue.received[:, 0]
    expected = np.maximum(lost, -tissue.expression[:, 5])
    assert expected.min() < -1e-3
    for found in rounds:
        np.testing.assert_allclose(full(tissue, found)[:, 5], expected, atol=1e-12)


def test_only_signals_whose_ligand_changed_are_received_again(tissue, betas):
    asked = []

    class Watching(DenseField):
        def apply(self, values, contact_mask):
            asked.append(values.shape[1])
            return super().apply(values, contact_mask)

    watched = baseline(tissue.expression, SIGNALS, Watching(tissue.field.secreted, tissue.field.contact))
    asked.clear()
    propagate(watched, TERMS, TARGETS, coefficients=in_memory(betas), inputs=[change(tissue, {2: 1.0})])
    assert asked[:2] == [1, 1]  # the secreted and the contact signal of gene 2
    # gene 2 stays pinned and of the targets only gene 6 is a ligand
    assert asked[2:] == [1, 1, 1]
    asked.clear()
    no_role = Targets(np.array([5]), np.array([0, len(TERMS)]), np.arange(len(TERMS)))
    propagate(watched, TERMS, no_role, coefficients=in_memory(betas[:, :10]), inputs=[change(tissue, {2: 1.0})])
    assert asked == [1, 1]


class Poisoned(Workspace):
    """Memory in which nothing is zero by chance."""

    def empty(self, name, shape, dtype):
        before = self._buffers.get(name)
        values = super().empty(name, shape, dtype)
        if self._buffers[name] is not before:
            self._buffers[name].fill(np.nan)
        return values


@pytest.mark.parametrize("n_propagation", [1, 2, 3, 4, 6, 7])
@pytest.mark.parametrize("name", WANTED)
def test_runs_with_other_coefficients_share_a_start(tissue, betas, name, n_propagation):
    # one more target, so that all that changes is more than what has a role
    targets = Targets(np.append(TARGETS.gene, 7), np.append(TARGETS.indptr, 20), np.append(TARGETS.term, [0, 3]))
    rng = np.random.default_rng(3)
    betas = np.concatenate([betas, rng.normal(0, 0.3, (N_CELLS, 3))], axis=1)
    inside, beyond = (change(tissue, {1: 1.0, 2: 0.5, 3: value, 4: 0.0}) for value in (0.2, 5.0))
    for others in ([], [inside], [beyond]):
        given = [change(tissue, WANTED[name]), *others]
        workspace = Poisoned()
        start = begin(tissue, TERMS, targets, given, workspace)
        states = start.wanted, start.held
        before = [np.concatenate([state.own, state.received], axis=1) for state in states]
        for other in (betas, *rng.normal(0, 0.3, (2, *betas.shape))):
            found, recycled, fresh = (
                propagate(
                    tissue,
                    TERMS,
                    targets,
                    coefficients=in_memory(other),
                    inputs=inputs,
                    n_propagation=n_propagation,
                    workspace=memory,
                )
                for inputs, memory in ((start, workspace), (given, Poisoned()), (given, None))
            )
            np.testing.assert_array_equal(found.values, fresh.values)
            np.testing.assert_array_equal(recycled.values, fresh.values)
            assert np.isfinite(found.values).all()
        for state, was in zip(states, before, strict=True):
            np.testing.assert_array_equal(np.concatenate([state.own, state.received], axis=1), was)


def test_single_precision_stays_close_to_double(tissue, betas):
    single = baseline(tissue.expression.astype(np.float32), SIGNALS, tissue.field)
    given = change(tissue, WANTED["combinatorial"])
    low = propagate(
        single,
        TERMS,
        TARGETS,
        coefficients=in_memory(betas.astype(np.float32)),
        inputs=[InputChange(given.genes, given.change.astype(np.float32))],
    )
    high = propagate(tissue, TERMS, TARGETS, coefficients=in_memory(betas), inputs=[given])
    assert low.values.dtype == np.float32
    np.testing.assert_allclose(low.values, high.values, atol=2e-5)
