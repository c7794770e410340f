"""Why a run gives an ECG its score: which model's numbers, which lead, which moment.

Here stand the light parts; what needs PyTorch is in `gradients` and `differentiable`.
"""

from ecgstore.explain.attribution import Attribution
from ecgstore.explain.drawing import draw, svg_of
from ecgstore.explain.explain import explain
from ecgstore.explain.record import Explanation, explain_record
from ecgstore.explain.shap import ShapResult, shap_of_run

__all__ = [
    "Attribution",
    "Explanation",
    "ShapResult",
    "draw",
    "explain",
    "explain_record",
    "shap_of_run",
    "svg_of",
]
