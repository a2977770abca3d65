"""Where things are under results/{experiment}/. Standard library only: the rules' paths are these."""

import re


def site_of(path: str) -> str:
    """Return the site in the path of a reading, table or picture; an empty text where it is of none."""
    found = re.search(r"/(?:readings|tables|plots)/[^/]+/([^/]+)/", path)
    return found.group(1) if found else ""
