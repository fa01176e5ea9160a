"""Set before any test imports NumPy: one BLAS thread, as a server runs, and as `implicit` insists on."""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"
