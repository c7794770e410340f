"""Ways to join what several models say of a record, each fitted on training records only."""

from ecgstore.fusion.attention import Attention
from ecgstore.fusion.fusion import Fusion, fusions
from ecgstore.fusion.linear import CCA, PCA, Projection, Whiten
from ecgstore.fusion.scores import Average, Rank, Stacking

__all__ = [
    "CCA",
    "PCA",
    "Attention",
    "Average",
    "Fusion",
    "Projection",
    "Rank",
    "Stacking",
    "Whiten",
    "fusions",
]

for _kind in (PCA, Whiten, CCA, Average, Rank, Stacking, Attention):
    fusions.add(_kind.name, _kind)
