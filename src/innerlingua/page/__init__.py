"""HTML pages in one file: what the routing report and the comparison of results share.

`assemble` puts markup, style, scripts and data together; `core.css` and `core.js` are what every page has (elements,
colours in light and dark, controls, downloads, tooltip, theme); `palette` has the colours. This room knows no other.
"""

from __future__ import annotations

from innerlingua.page.assemble import assemble
from innerlingua.page.palette import CATEGORIES, DIVERGING, SEQUENTIAL, ramp

__all__ = ["CATEGORIES", "DIVERGING", "SEQUENTIAL", "assemble", "ramp"]
