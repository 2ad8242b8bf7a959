"""The adjoint pass against automatic differentiation of the rounds, and against small real perturbations."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch

from spacetravlr._core.design import Kind, Signals, Targets, Terms
from spacetravlr._core.response.adjoint import Weights, gradient, pinned_gradient, self_return
from spacetravlr._core.response.propagation import CoefficientChunk, baseline, in_memory, propagate
from spacetravlr._core.response.pull_back import Linearised
from spacetravlr._core.response.round import Baseline
from spacetravlr._core.response.start import InputChange, roles

# 0, 1 TFs (0 is a target, 1 a ligand too), 2 ligand of both ranges, 3, 4 receptors (3 is a target, 4 a ligand too),
# 5, 7 targets only, 6 target that is a ligand too; targets 0 -> 3 -> 0 and 6 -> 0 -> 6 are loops
N_CELLS, N_GENES = 14, 8
SIGNALS = Signals(np.array([1, 2, 2, 4, 6]), np.array([False, False, True, False, False]))
TERMS = Terms(
    np.array([Kind.TF, Kind.TF, Kind.LR, Kind.LR, Kind.LR, Kind.LR, Kind.TFL, Kind.TFL, Kind.LR, Kind.RECEPTOR]),
    np.array([0, 1, 3, 4, 3, 3, 0, 1, 4, 3]),
    np.array([-1, -1, 0, 1, 2, 3, 1, 3, 4, -1]),
)
TARGETS = Targets(
    np.array([5, 0, 6, 3, 7]),
    np.array([0, 10, 14, 18, 20, 23]),
    np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 5, 7, 8, 0, 2, 3, 6, 0, 8, 0, 4, 6]),
)
LEAVES = Targets(np.array([5, 7]), np.array([0, 10, 13]), np.r_[TARGETS.term[:10], TARGETS.term[20:]])
ROLE = roles(TERMS, SIGNALS)
WEIGHTS = Weights(np.array([0, 5, 7]), np.random.default_rng(3).normal(size=(N_CELLS, 3)))
SOME = np.arange(N_CELLS) < 9


class DenseField:
    """Received signals through explicit weights, which need not be symmetric."""

    def __init__(self, secreted, contact):
        self.secreted, self.contact = secreted, contact

    def apply(self, values, contact_mask):
        return np.where(contact_mask, self.contact @ values, self.secreted @ values)

    def transposed(self):
        return DenseField(self.secreted.T, self.contact.T)


def problem(targets=TARGETS, *, bounds):
    """A tissue and coefficients; without ``bounds`` every gene can rise and fall in every cell."""
    rng = np.random.default_rng(0)
    place = rng.uniform(0, 10, (N_CELLS, 2))
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    uneven = rng.uniform(0.5, 1.5, (N_CELLS, N_CELLS))
    field = DenseField(uneven * np.exp(-(distance**2) / 8), uneven * np.exp(-(distance**2)) * (distance < 2))
    expression = rng.uniform(0.1, 2, (N_CELLS, N_GENES))
    if bounds:
        expression *= rng.uniform(size=expression.shape) > 0.3
    tissue = baseline(expression, SIGNALS, field)
    if not bounds:
        tissue = Baseline(tissue.expression, tissue.received, tissue.maximum + 1, field, SIGNALS)
    return tissue, np.random.default_rng(1).normal(scale=0.15, size=(N_CELLS, targets.n_columns)), targets


def rounds(given, n_propagation, derivative, reader=in_memory):
    tissue, betas, targets = given
    return Linearised(tissue, TERMS, targets, reader(betas), tissue.field.transposed(), n_propagation, derivative)


def twin(given, dose, n_propagation, derivative, *, pinned=None):
    """The rounds in torch, for a dose of all genes and cells; ``pinned`` genes hold it, others have it added."""
    tissue, betas, targets = given
    x0, heard0, betas = (torch.from_numpy(np.ascontiguousarray(a)) for a in (tissue.expression, tissue.received, betas))
    weights = [torch.from_numpy(np.ascontiguousarray(w)) for w in (tissue.field.secreted, tissue.field.contact)]

    def hold(change):
        return dose + change if pinned is None else torch.where(pinned, dose, change)

    change, x_before, heard_before = dose, x0, heard0
    for _ in range(n_propagation):
        x = x0 + change
        heard = torch.stack(
            [weights[int(c)] @ x[:, g] for g, c in zip(SIGNALS.ligand, SIGNALS.contact, strict=True)], dim=1
        )
        columns = [torch.zeros(N_CELLS, dtype=torch.float64)] * N_GENES
        for t in range(len(targets)):
            total = torch.zeros(N_CELLS, dtype=torch.float64)
            for k, m in enumerate(targets.terms_of(t)):
                g, s, b = TERMS.gene[m], TERMS.signal[m], betas[:, targets.columns_of(t)][:, k + 1]
                if TERMS.kind[m] == Kind.RECEPTOR:
                    continue
                if s < 0:
                    total = total + b * (x - x0)[:, g]
                elif derivative == "exact":
                    total = total + b * (x[:, g] * heard[:, s] - x0[:, g] * heard0[:, s])
                else:
                    total = total + b * heard_before[:, s] * (x - x0)[:, g]
                    total = total + b * x_before[:, g] * (heard - heard0)[:, s]
            columns[targets.gene[t]] = total
        change = hold(torch.stack(columns, dim=1))
        x_before, heard_before = x, heard
    return (change[:, WEIGHTS.genes] * torch.from_numpy(WEIGHTS.values)).sum()


@pytest.mark.parametrize("derivative", ["product_rule", "exact"])
@pytest.mark.parametrize("n_propagation", [1, 2, 4])
def test_the_pass_is_what_automatic_differentiation_gives(derivative, n_propagation):
    given = problem(bounds=False)
    how = rounds(given, n_propagation, derivative)
    dose = torch.zeros((N_CELLS, N_GENES), dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(twin(given, dose, n_propagation, derivative), dose)
    found = gradient(how, WEIGHTS)
    np.testing.assert_array_equal(found.genes, ROLE)
    for values in (found.increase, found.decrease):
        np.testing.assert_allclose(values, expected[:, ROLE], atol=1e-12)
    held = pinned_gradient(how, WEIGHTS, ROLE, SOME)
    for p, gene in enumerate(ROLE):
        pins = torch.zeros((N_CELLS, N_GENES), dtype=torch.bool)
        pins[SOME, gene] = True
        (expected,) = torch.autograd.grad(twin(given, dose, n_propagation, derivative, pinned=pins), dose)
        np.testing.assert_allclose(held.increase[SOME, p], expected[SOME, gene], atol=1e-12)
    if n_propagation > 2:  # what comes back is not small here
        assert np.abs(held.increase - found.increase)[SOME].max() > 0.01


def test_a_step_forwards_and_one_backwards_agree():
    given = problem(bounds=False)
    dose = torch.from_numpy(np.random.default_rng(5).normal(size=(N_CELLS, N_GENES)))
    start = torch.zeros_like(dose)
    _, forwards = torch.autograd.functional.jvp(lambda d: twin(given, d, 4, "exact"), start, dose)
    found = gradient(rounds(given, 4, "exact"), WEIGHTS)
    others = np.setdiff1d(np.arange(N_GENES), ROLE)
    place = np.searchsorted(WEIGHTS.genes, others)
    by_themselves = sum((WEIGHTS.values[:, k] * dose.numpy()[:, g]).sum() for k, g in zip(place, others, strict=True))
    np.testing.assert_allclose(float(forwards), (found.increase * dose.numpy()[:, ROLE]).sum() + by_themselves)


def real(given, inputs, n_propagation, derivative):
    """Read-out after real perturbations."""
    tissue, betas, targets = given
    changes = propagate(
        tissue, TERMS, targets, coefficients=in_memory(betas), inputs=inputs, n_propagation=n_propagation,
        derivative=derivative,
    )  # fmt: skip
    shared, mine, theirs = np.intersect1d(WEIGHTS.genes, changes.genes, return_indices=True)
    assert len(shared)
    return np.einsum("jg,jgp->p", WEIGHTS.values[:, mine], changes.values[:, theirs])


def differences(given, gene, sign, n_propagation, derivative, step=1e-7):
    """Finite differences at every cell while the gene is perturbed a little in all cells where it can be."""
    start = np.full((N_CELLS, 1), sign * 1e-3 * step)
    if sign < 0:
        start *= given[0].expression[:, [gene]] > 0
    doses = np.repeat(start[None], N_CELLS + 1, axis=0)
    doses[np.arange(N_CELLS) + 1, np.arange(N_CELLS), 0] += sign * step
    inputs = [InputChange(np.array([gene]), dose) for dose in doses]
    values = real(given, inputs, n_propagation, derivative)
    return (values[1:] - values[0]) / (sign * step)


@pytest.mark.parametrize("derivative", ["product_rule", "exact"])
@pytest.mark.parametrize("n_propagation", [1, 2, 4])
@pytest.mark.parametrize("sign", [1, -1])
def test_small_perturbations_where_nothing_is_at_a_bound(derivative, n_propagation, sign):
    given = problem(bounds=False)
    found = pinned_gradient(rounds(given, n_propagation, derivative), WEIGHTS, ROLE, np.ones(N_CELLS, dtype=bool))
    values = found.increase if sign > 0 else found.decrease
    for p, gene in enumerate(ROLE):
        np.testing.assert_allclose(values[:, p], differences(given, gene, sign, n_propagation, derivative), atol=1e-6)


@pytest.mark.parametrize("derivative", ["product_rule", "exact"])
@pytest.mark.parametrize("n_propagation", [1, 2, 4])
@pytest.mark.parametrize("sign", [1, -1])
def test_small_perturbations_where_clipping_is_active(derivative, n_propagation, sign):
    """A third of the values are zero. No target is a regulator here, so that no two paths meet at a bound."""
    given = problem(LEAVES, bounds=True)
    both_ways = gradient(rounds(given, n_propagation, derivative), WEIGHTS)
    values = both_ways.increase if sign > 0 else both_ways.decrease
    clipped = 0
    for gene in (0, 3, 6):  # the others reach a target by two paths: as TF, receptor or two signals
        p = ROLE.tolist().index(gene)
        able = given[0].expression[:, gene] > 0 if sign < 0 else np.ones(N_CELLS, dtype=bool)
        expected = differences(given, gene, sign, n_propagation, derivative)
        np.testing.assert_allclose(values[able, p], expected[able], atol=1e-6)
        clipped += np.sum(np.abs(both_ways.increase - both_ways.decrease)[:, p] > 1e-3)
    assert clipped > 10  # the two directions do differ


def test_paths_that_meet_at_a_bound_are_nearly_right():
    """Half of what comes by longer ways passes; what only the last bound clips is exact."""
    given = problem(bounds=True)
    found = pinned_gradient(rounds(given, 4, "product_rule"), WEIGHTS, ROLE, np.ones(N_CELLS, dtype=bool))
    either_way = (found.increase + found.decrease) / 2
    for sign, values in ((1, found.increase), (-1, found.decrease)):
        expected = np.stack([differences(given, gene, sign, 4, "product_rule") for gene in ROLE], axis=1)
        able = given[0].expression[:, ROLE] > 0 if sign < 0 else np.ones(values.shape, dtype=bool)
        assert np.corrcoef(values[able], expected[able])[0, 1] > 0.99
        missed, halved = (np.linalg.norm((of - expected)[able]) for of in (values, either_way))
        assert missed < 0.2 * np.linalg.norm(expected[able])
        assert missed < 0.75 * halved


def test_a_receptor_that_is_not_there_is_closed_in_the_first_round_only():
    given = problem(LEAVES, bounds=True)
    receptor, absent = 3, given[0].expression[:, 3] == 0
    column = ROLE.tolist().index(receptor)
    first, second = (gradient(rounds(given, t, "product_rule"), WEIGHTS).increase[absent, column] for t in (1, 2))
    exact = gradient(rounds(given, 1, "exact"), WEIGHTS).increase[absent, column]
    assert absent.sum() > 2
    np.testing.assert_array_equal(first, 0)
    np.testing.assert_allclose(second, exact)
    assert np.abs(exact).max() > 0.05


def test_what_cannot_come_back_needs_no_pass_of_its_own():
    given = problem(bounds=True)
    how = rounds(given, 4, "product_rule")
    back = dict(zip(ROLE.tolist(), self_return(how), strict=True))
    assert {gene for gene, size in back.items() if size > 0} == {0, 3, 6}
    together, apart = gradient(how, WEIGHTS), pinned_gradient(how, WEIGHTS, ROLE, np.ones(N_CELLS, dtype=bool))
    for p, gene in enumerate(ROLE):
        difference = np.abs(together.increase[:, p] - apart.increase[:, p]).max()
        assert (difference > 1e-4) == (back[gene] > 0)
    assert not self_return(rounds(given, 1, "product_rule")).any()


def test_coefficients_may_come_in_pieces():
    given = problem(bounds=True)

    def pieces(betas):
        def read(wanted, needed=None):
            for group in (wanted[:1], wanted[1:]):
                if len(group):
                    first = given[2].columns_of(int(group.min())).start
                    stop = given[2].columns_of(int(group.max())).stop
                    for cells in (slice(0, 5), slice(5, N_CELLS)):
                        values = np.full((cells.stop - cells.start, stop - first), np.nan)
                        held = needed[(needed >= first) & (needed < stop)]
                        values[:, held - first] = betas[cells][:, held]  # what is not asked for is not there
                        yield CoefficientChunk(cells, group, first, values)

        return read

    whole, parts = (rounds(given, 4, "product_rule", reader) for reader in (in_memory, pieces))
    for found, expected in zip(gradient(parts, WEIGHTS), gradient(whole, WEIGHTS), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-14)
    np.testing.assert_allclose(self_return(parts), self_return(whole))


def test_results_do_not_depend_on_the_number_of_threads():
    given = problem(bounds=True)
    before, found = numba.get_num_threads(), []
    try:
        for threads in (1, min(2, before)):
            numba.set_num_threads(threads)
            how = rounds(given, 4, "product_rule")
            found.append([*gradient(how, WEIGHTS), *pinned_gradient(how, WEIGHTS, ROLE[:2], SOME), self_return(how)])
    finally:
        numba.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
