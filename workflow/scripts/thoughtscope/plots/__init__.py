"""Room 7, plots: the tables as pictures."""

from matplotlib import artist

# Half of the time matplotlib takes to import goes into documenting its setters, which no picture shows.
artist.kwdoc = lambda artist: ""
artist.Artist._update_set_signature_and_docstring = classmethod(lambda _: None)  # type: ignore[attr-defined]
