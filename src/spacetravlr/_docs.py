"""Shared descriptions of parameters.

A line ``%(n_jobs)s`` in the Parameters section of a docstring is replaced with the entry of that name below by the
decorator :func:`document`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import cleandoc
from textwrap import indent
from typing import Any, TypeVar

Thing = TypeVar("Thing", bound=Callable[..., Any] | type)

_LINE = re.compile(r"^([ \t]*)%\((\w+)\)s[ \t]*$", flags=re.MULTILINE)

_ENTRIES = """
adata_fitted
    Annotated data with coefficients of :func:`spacetravlr.tl.fit_betas`, or SpatialData.
adata_perturbed
    Annotated data after :func:`spacetravlr.tl.perturb`, or SpatialData.
adata_screen
    Result of :func:`spacetravlr.tl.genome_screen`, perturbations x genes.
target_one
    A modelled gene.
targets_all
    Modelled genes; all by default.
betas_key
    Key of the coefficients.
perturbed_key
    Key of the perturbation.
adata_drivers
    Annotated data after :func:`spacetravlr.tl.drivers`, or SpatialData.
drivers_key
    Key of the drivers.
driver_mode
    ``"knockout"`` ranks genes by the effect of losing them, ``"increase"`` by the effect of raising them by one
    standard deviation.
signals_key
    Key of the tests of :func:`spacetravlr.tl.test_signals`.
received_key
    Key of the received ligands; defaults to the key that the fit used.
baseline_layer
    Layer with the expression to start from, on the scale of the fit; ``"X"`` for ``adata.X``. Defaults to the denoised
    layer of :func:`spacetravlr.pp.denoise` if the fit used counts (computed where it is missing), and to the layer of
    the fit if not.
layer_normalised
    Layer with normalised expression; ``None`` uses ``X``.
cluster_key
    Column of ``adata.obs`` with cell types; defaults to the column that :func:`spacetravlr.pp.modulators` used.
library_key
    Column of ``adata.obs`` with the slide of each cell; defaults to the column that
    :func:`spacetravlr.pp.spatial_weights` used.
library_id
    Slide to show; by default all slides, side by side.
table_key
    Table to use if ``adata`` is SpatialData with more than one.
cells
    Cells to perturb: a mask, names, positions, or a comparison on ``adata.obs`` such as ``"cell_type == 'B'"``; all by
    default.
n_propagation
    Rounds of propagation.
derivative
    ``"product_rule"`` linearises each regressor at the state of the previous round. ``"exact"`` takes the difference of
    the fitted model itself. The two agree to first order.
n_samples
    Number of posterior draws of the coefficients with which the perturbation is repeated, for standard errors; at most
    the ``n_draws`` that the fit kept. By default none.
adjusted
    Let changes also pass through adjustment terms (the main effects of receptors and ligands that
    :func:`spacetravlr.pp.modulators` adds). These terms support no causal claim and are left out by default.
screen_mode
    ``"knockout"`` sets a gene to zero, ``"overexpression"`` to its largest expression in the tissue.
scale_factor
    Factor on the contributions of ligand-receptor and ligand-TF terms.
beta_cap
    Clip the summed derivatives to ``[-beta_cap, beta_cap]``.
rng
    Seed or generator.
n_jobs
    Number of threads; ``None`` uses ``st.settings.n_jobs``. Results do not depend on it.
client
    ``dask.distributed.Client`` whose workers compute, one task per process at a time, while this process writes. If a
    worker dies, its tasks are recomputed.
show_progress_bar
    Show a progress bar; ``None`` uses ``st.settings.show_progress_bar``.
key_added
    Key of the result.
copy
    Return a changed copy instead of changing ``adata``.
cmap
    Colour map.
ncols
    Number of panels per row.
size
    Marker area in points squared; by default neighbouring cells just touch.
limit
    Value at the ends of the colour scale, which is centred on zero, or a percentile of absolute values such as
    ``"p95"``; by default ``"p99"`` of each panel. The colour bar is pointed where values lie beyond.
ax
    Axes to draw on.
ax_panels
    Axes to draw on, one per panel.
figsize
    Figure size in inches.
title
    Title.
return_fig
    Return the figure.
save
    File to save the figure to.
"""


#: Entries whose key is not the name of their parameter: the parameter means different things in different calls.
_NAMES = {
    "adata_fitted": "adata",
    "adata_perturbed": "adata",
    "adata_drivers": "adata",
    "driver_mode": "mode",
    "adata_screen": "adata",
    "target_one": "target",
    "targets_all": "target",
    "ax_panels": "ax",
    "layer_normalised": "layer",
    "screen_mode": "mode",
}


def _parse(text: str) -> dict[str, tuple[str, str]]:
    """Map the key of each entry to the name of its parameter and the description."""
    found = {}
    for entry in re.split(r"\n(?=\S)", text.strip()):
        key, _, description = entry.partition("\n")
        found[key] = (_NAMES.get(key, key), description)
    return found


ENTRIES = _parse(_ENTRIES)


def document(thing: Thing) -> Thing:
    """Put the shared descriptions into the docstring of a function, method or class.

    Raises
    ------
    KeyError
        If a docstring asks for an entry that does not exist.
    """

    def entry(match: re.Match[str]) -> str:
        name, description = ENTRIES[match[2]]
        return indent(f"{name}\n{indent(cleandoc(description), '    ')}", match[1])

    if thing.__doc__:
        thing.__doc__ = _LINE.sub(entry, thing.__doc__)
    return thing
