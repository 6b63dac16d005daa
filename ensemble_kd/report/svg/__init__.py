"""Small charts as SVG that stands in a page: their colours are those of its style sheet.

Text that comes from outside is escaped where an element is made (``element``), and nowhere else is
markup put together. Lengths are in pixels, from the upper left corner.
"""

from __future__ import annotations

from ensemble_kd.report.svg.bars import reliability_chart
from ensemble_kd.report.svg.element import Drawing, element
from ensemble_kd.report.svg.graph import Node, lineage_graph
from ensemble_kd.report.svg.heat import Cell, heat_map
from ensemble_kd.report.svg.lines import Line, line_chart
from ensemble_kd.report.svg.rows import Mark, Row, row_chart
from ensemble_kd.report.svg.scatter import Spot, scatter_chart

__all__ = [
    "Cell",
    "Drawing",
    "Line",
    "Mark",
    "Node",
    "Row",
    "Spot",
    "element",
    "heat_map",
    "line_chart",
    "lineage_graph",
    "reliability_chart",
    "row_chart",
    "scatter_chart",
]
