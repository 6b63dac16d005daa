"""``report.html``: everything on a run, or on a sweep, in one file that needs no other.

It loads nothing, runs no script, and is the same, byte for byte, each time it is made.
"""

from __future__ import annotations

from ensemble_kd.report.page.write import PAGE, write_run_page, write_sweep_page

__all__ = ["PAGE", "write_run_page", "write_sweep_page"]
