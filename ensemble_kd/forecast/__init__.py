"""What a run will take: time, memory, and bytes on disk and over the network, before it is begun.

``model`` is arithmetic and nothing else; ``survey`` measures, on this machine, what it needs.
"""

from ensemble_kd.forecast.described import (
    Answered,
    Assessment,
    Cluster,
    Data,
    Forecast,
    Job,
    Row,
    Work,
)
from ensemble_kd.forecast.model import forecast
from ensemble_kd.forecast.spans import Line, Span, Timing

__all__ = [
    "Answered",
    "Assessment",
    "Cluster",
    "Data",
    "Forecast",
    "Job",
    "Line",
    "Row",
    "Span",
    "Timing",
    "Work",
    "forecast",
]
