"""Gradient-boosted trees: the classifier of the paper, for every target, on CPU or GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from ecgstore import settings
from ecgstore.classifiers.classifier import Classifier, Setting, classifiers
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ecgstore.tasks import Target

__all__ = ["XGBoost"]

_OBJECTIVES = {
    "binary": "binary:logistic",
    "multiclass": "multi:softprob",
    "continuous": "reg:squarederror",
    "survival": "survival:cox",
}


class XGBoost(Classifier):
    """Gradient-boosted trees, with the settings of Meng et al. (2025, arXiv 2502.17476).

    The paper states depth, learning rate and both subsampling rates. It states no number of trees:
    100 is XGBoost's own default, as are the settings from ``min_child_weight`` on. A value that
    lacks (NaN) goes down the branch that training found better. Trees grow on the GPU only where
    the device is set to ``cuda``: then other numbers come out than on a CPU, so ``auto`` is none.

    Continuous labels are fitted by squared error; times by Cox's partial likelihood (1972), and
    the score is the relative hazard.
    """

    name = "xgboost"
    reads = "features"
    format = "ubj"
    targets = frozenset(_OBJECTIVES)
    takes_missing = True
    defaults: ClassVar[Mapping[str, Setting]] = {
        "n_estimators": 100,
        "max_depth": 6,
        "learning_rate": 0.1,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "min_child_weight": 1.0,
        "gamma": 0.0,
        "reg_lambda": 1.0,
        "reg_alpha": 0.0,
        "scale_pos_weight": 1.0,
        "max_bin": 256,
        "seed": 0,
    }
    space: ClassVar[Mapping[str, tuple[Setting, ...]]] = {
        "n_estimators": ("whole", 50, 500),
        "max_depth": ("whole", 2, 8),
        "learning_rate": ("log", 0.02, 0.3),
        "subsample": ("number", 0.5, 1.0),
        "colsample_bytree": ("number", 0.2, 1.0),
        "min_child_weight": ("log", 0.5, 20.0),
        "reg_lambda": ("log", 0.1, 30.0),
    }

    @property
    def dim(self) -> int:
        """Length of the vectors it was fitted to."""
        return int(self._booster.num_features())

    def _fit(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float64],
        *,
        step: Callable[[], None],
        groups: NDArray[np.intp] | None,
    ) -> None:
        import xgboost

        params = {**self.params, **self._fixed(self.target)}
        if self.target == "multiclass":
            params["num_class"] = int(y.max()) + 1
        rounds = int(params.pop("n_estimators"))
        if rounds < 1:
            msg = f"n_estimators is {rounds}; XGBoost needs at least 1 tree."
            raise UsageError(msg)
        try:
            data = xgboost.QuantileDMatrix(
                x, label=y, max_bin=params["max_bin"], nthread=settings.threads()
            )
            self._booster = xgboost.train(params, data, num_boost_round=rounds)
        except xgboost.core.XGBoostError as error:
            reason = str(error).splitlines()[0].rpartition("Check failed: ")[2]
            msg = f"XGBoost cannot fit: {reason}."
            raise UsageError(msg) from error
        step()

    def _predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        import xgboost

        if _gpu() is None:
            scores = self._booster.inplace_predict(x)
        else:  # vectors that are not on the GPU must be brought there
            scores = self._booster.predict(xgboost.DMatrix(x))
        found: NDArray[np.float64] = scores.astype(np.float64)
        return found

    def save(self) -> bytes:
        """Return the trees as universal binary JSON."""
        return bytes(self._booster.save_raw("ubj"))

    @classmethod
    def load(cls, data: bytes, *, target: Target = "binary") -> Self:
        """Return the classifier that `save` saved."""
        import xgboost

        classifier = cls(target=target)
        classifier._booster = xgboost.Booster(cls._fixed(target), model_file=bytearray(data))
        return classifier

    @staticmethod
    def library() -> str:
        """Return the version of XGBoost."""
        import xgboost

        return f"xgboost {xgboost.__version__}"

    @staticmethod
    def machine() -> dict[str, str | int]:
        """Return the GPU, where trees grow on one."""
        device = _gpu()
        if device is None:
            return {}
        import torch

        return {"device": torch.cuda.get_device_name(device)}

    @staticmethod
    def _fixed(target: Target) -> dict[str, Setting]:
        fixed: dict[str, Setting] = {
            "objective": _OBJECTIVES[target],
            "tree_method": "hist",
            "nthread": settings.threads(),
            "verbosity": 0,
        }
        device = _gpu()
        return fixed if device is None else {**fixed, "device": device}


def _gpu() -> str | None:
    """Return the GPU that the setting of the device asks for, or None for the CPU.

    Raises:
        UsageError: There is no such GPU, or XGBoost was built without CUDA.
    """
    name = settings.device_name()
    if not name.startswith("cuda"):
        return None
    import xgboost

    from ecgstore.models.device import find_device

    if not xgboost.build_info().get("USE_CUDA"):
        msg = f"The device {name!r} was asked for, but this XGBoost was built without CUDA."
        raise UsageError(msg, hint="Use the device cpu, or the package xgboost with CUDA.")
    return str(find_device(name))


classifiers.add(XGBoost.name, XGBoost)
