"""thoughtscope: does a k-sparse autoencoder reveal thinking patterns in a reasoning model?

For a notebook: `study = thoughtscope.open("results/taught")`, then `study.table("verdict", site=20)`,
`study.site(20).latent(906).contexts(50)`, `study.search(text="let me check")`, `thoughtscope.compare(study, other)`.
`help(thoughtscope.Study)` has the rest; it only reads what a run has written.

The library behind the workflow, one package a room, in the order data walks through them: `problems`, `models`,
`teaching`, `traces`, `saes`, `readings`, `evidence`, `interventions`, `truth`, `plots` and `report`; the modules beside
them are the hall. Nothing here imports snakemake.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Latent, Site, Study, Trace, compare, open

__version__ = "0.1.0"
__all__ = ["Latent", "Site", "Study", "Trace", "compare", "open"]


def __getattr__(name: str) -> Any:
    """Import the reading of studies when it is asked for: Snakemake, which only wants paths, shouldn't wait for it."""
    if name not in __all__:
        raise AttributeError(f"module 'thoughtscope' has no attribute {name!r}")
    from . import api

    return getattr(api, name)
