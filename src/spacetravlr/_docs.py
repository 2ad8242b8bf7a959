"""Descriptions of parameters that many functions share, written once.

A line ``%(n_jobs)s`` among the parameters of a docstring stands for the entry of that name here; the decorator
:func:`document` puts the entry in its place.
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
    ``"knockout"`` ranks by what losing a gene does, ``"increase"`` by what one standard deviation more of it does.
signals_key
    Key of the tests of :func:`spacetravlr.tl.test_signals`.
received_key
    Key of the received ligands; what the fit used by default.
layer_start
    Expression to start from; what the fit used by default.
layer_normalised
    Layer with normalised expression; ``None`` uses ``X``.
cluster_key
    Column of ``adata.obs`` with the type of each cell; what the modulators were made with by default.
library_key
    Column of ``adata.obs`` with the slide of each cell; what the weights were made with by default.
library_id
    Slide to show; all, side by side, by default.
table_key
    Table to use when ``adata`` is SpatialData with more than one.
cells
    Cells to perturb: a mask, names, positions, or a comparison on ``adata.obs`` such as ``"cell_type == 'B'"``; all by
    default.
n_propagation
    Rounds of propagation.
derivative
    ``"product_rule"`` linearises each regressor at the state of the previous round, ``"exact"`` takes the difference of
    the fitted model itself; they agree to first order.
n_samples
    Draws of the coefficients from their posterior to repeat the perturbation with, for standard errors; at most the
    ``n_draws`` that the fit kept. None by default.
adjusted
    Let changes pass through adjustment terms too (a receptor by itself, as :func:`spacetravlr.pp.modulators` adds
    them), on which no claim of cause rests; left out by default.
screen_mode
    ``"knockout"`` sets a gene to zero, ``"overexpression"`` to its largest expression in the tissue.
scale_factor
    Multiplies the parts that come from ligand-receptor and ligand-TF terms.
beta_cap
    Clips the summed derivatives to ``[-beta_cap, beta_cap]``.
rng
    Seed or generator.
n_jobs
    Threads; ``None`` is ``st.settings.n_jobs``. Results do not depend on it.
client
    ``dask.distributed.Client`` whose workers compute, one task per process at a time, while this process writes. Tasks
    of a worker that dies are computed again.
show_progress_bar
    Draw a progress bar; ``None`` is ``st.settings.show_progress_bar``.
key_added
    Key of the result.
copy
    Return a changed copy instead of changing ``adata``.
cmap
    Colour map.
ncols
    Panels per row.
size
    Marker area in points squared; by default neighbouring cells just touch.
limit
    Value at the ends of the colour scale; by default the 99th percentile of each panel.
ax
    Axes to draw on.
ax_panels
    Axes to draw on, one per panel.
figsize
    Size of the figure, in inches.
title
    Title.
return_fig
    Return the figure.
save
    File to write.
"""


#: Entries whose key is not the name of their parameter: one parameter that means different things in different calls.
_NAMES = {
    "adata_fitted": "adata",
    "adata_perturbed": "adata",
    "adata_drivers": "adata",
    "driver_mode": "mode",
    "adata_screen": "adata",
    "target_one": "target",
    "targets_all": "target",
    "ax_panels": "ax",
    "layer_start": "layer",
    "layer_normalised": "layer",
    "screen_mode": "mode",
}


def _parse(text: str) -> dict[str, tuple[str, str]]:
    """From the key of an entry to the name of its parameter and the description."""
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
        When a docstring asks for an entry that does not exist.
    """

    def entry(match: re.Match[str]) -> str:
        name, description = ENTRIES[match[2]]
        return indent(f"{name}\n{indent(cleandoc(description), '    ')}", match[1])

    if thing.__doc__:
        thing.__doc__ = _LINE.sub(entry, thing.__doc__)
    return thing
