"""Classifiers behind one fit and predict; a fitted one is kept in a format of numbers only."""

from ecgstore.classifiers.classifier import Classifier, Setting, classifiers, read_settings
from ecgstore.classifiers.head import Head
from ecgstore.classifiers.linear import Logistic, LogisticCV
from ecgstore.classifiers.mlp import MLP
from ecgstore.classifiers.nearest import Nearest
from ecgstore.classifiers.ridge import Ridge
from ecgstore.classifiers.sequence import Sequence
from ecgstore.classifiers.trees import XGBoost

__all__ = [
    "MLP",
    "Classifier",
    "Head",
    "Logistic",
    "LogisticCV",
    "Nearest",
    "Ridge",
    "Sequence",
    "Setting",
    "XGBoost",
    "classifiers",
    "read_settings",
]
