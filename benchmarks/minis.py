"""The small encoders that come with ecgstore, from nothing: cohort, training, proof.

    python benchmarks/minis.py cohort   --root R    a warehouse of synthetic and of open ECGs
    python benchmarks/minis.py train    --root R    the three encoders, on it
    python benchmarks/minis.py look     --root R    what their vectors tell of synthetic hearts
    python benchmarks/minis.py evaluate --root R    each beside its untrained twin, on PTB-XL
    python benchmarks/minis.py package  --root R    into ecgstore/models/minis

Each step is finished by running it again; without a step's name all run in this order. `RECIPES`
is the whole recipe. The open ECGs are those of ``--data`` that are not PTB-XL's, nor made of them.
A twin has the weights that its encoder had before the first step.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ecgstore import convert_weights
from ecgstore.heart import P, T
from ecgstore.models.weights import write_safetensors
from ecgstore.pretraining import methods
from ecgstore.progress import Silent
from ecgstore.store import Store
from ecgstore.synthetic import cohort, write_wfdb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ecgstore.fuse import FuseResult
    from ecgstore.patients import Patient
    from ecgstore.scored import Score
    from ecgstore.synthetic import SyntheticRecord

BATCH = 32
SEED = 7
RECORDS = 16_000
ACS = 0.3
SIZE = "mini"
_CONTRAST = {
    "stem_gradient": 1.0,
    "tau_decay": 0.998,
    "dropout": 0.0,
    "negatives": 20,
    "mask_span": 5,
}

RECIPES: dict[str, list[dict[str, Any]]] = {
    "ecgfm": [
        {"steps": 2900, "learning_rate": 0.0007, "settings": _CONTRAST},
        {"steps": 600, "learning_rate": 0.00007, "settings": _CONTRAST | {"tau": 0.5}},
    ],
    "stmem": [
        {"steps": 9000, "learning_rate": 0.0015, "settings": {"mask_ratio": 0.8}},
    ],
    "ecgflow": [
        {"steps": 5000, "learning_rate": 0.0015},
        {"steps": 4500, "learning_rate": 0.001, "settings": {"normalise_patches": False}},
        {"teacher": ["ecgfm", "stmem"], "steps": 5000},
    ],
}
"""What differs from the published recipe in each stage, which goes on from the one before.

A stage with teachers is `Store.distil`: the encoder learns the vectors of encoders before it in
this list, and not to forget its own.
"""

OPEN = {
    "challenge2021": [
        f"challenge2021/{site}"
        for site in (
            "cpsc_2018",
            "cpsc_2018_extra",
            "chapman_shaoxing",
            "ningbo",
            "georgia",
            "ptb",
        )
    ],
    "cpsc2018": ["cpsc2018_original"],
    "sph": ["sph"],
}
"""Open 12-lead ECGs of at least 10 s that no task is tested on here; ``ptbxl_hr`` is left out."""

TRUTH: dict[str, dict[str, Callable[[Patient], Any]]] = {
    "varied": {
        "P": lambda one: one.heart[P],
        "QRS": lambda one: one.heart[[2, 3, 4, 5]],
        "T": lambda one: one.heart[T],
        "ST": lambda one: one.st,
        "QRS duration": lambda one: one.qrs_s,
        "rate": lambda one: one.rate_bpm,
    },
    "retaken": {"order of the QRS": lambda one: one.qrs_shift},
}
"""The truth behind the synthetic ECGs of a cohort: heart vectors of waves, ST vector, duration,
rate, and how late each wave of the QRS comes."""

CHANGES = {"old infarct": "old infarct", "no change": ""}
"""What a logistic regression is to tell from all else; see `ecgstore.variety`."""

UNSEEN = 1500
"""Synthetic ECGs that no encoder has seen, of either cohort."""

TASKS = ("MI", "NORM")
CLASSIFIERS = {"xgboost": "XGBoost", "logistic_cv": "linear probe"}
MINIS = Path(__file__).resolve().parent.parent / "ecgstore" / "models" / "minis"


def make_cohort(root: Path, data: Path, records: int) -> None:
    """Fill a warehouse to train on."""
    hearts = cohort(records, seed=SEED, acs=ACS, varied=True)
    again = cohort(records, seed=SEED + 1, acs=ACS, retaken=True)
    with Store(root / "pretraining") as store:
        for dataset, made in (("synthetic-varied", hearts), ("synthetic-retaken", again)):
            files = root / dataset
            if not (files / "labels.csv").exists():
                write_wfdb(files, made)
            store.ingest(files, dataset=dataset, keep_ids=True)
        for dataset, folders in OPEN.items():
            for folder in folders:
                store.ingest(data / folder, dataset=dataset)
        print(store.sql("select dataset, site, count(*) as ecgs from records group by all").pl())


def train(root: Path, name: str) -> Path:
    """Train one encoder, stage by stage, and return the file of its encoder alone."""
    torch.set_float32_matmul_precision("medium")  # products in bfloat16, where a CPU has them
    weights = None
    with Store(root / "pretraining") as store:
        for number, stage in enumerate(RECIPES[name], start=1):
            out = root / "runs" / f"{name}{number}"
            options: dict[str, Any] = {
                "weights": weights,
                "out": out,
                "resume": (out / "run.json").exists(),
                "batch_size": BATCH,
                "seed": SEED,
                "precision": "fp32",
                "device": "cpu",
                **stage,
            }
            if "teacher" in stage:
                files = {one: root / f"{one}.mini.safetensors" for one in stage["teacher"]}
                options["teacher"] = join(store, {**files, name: weights})
                done = store.distil(name, **options)
            else:
                done = store.pretrain(name, size=None if weights else SIZE, **options)
            weights = done.weights
            print(json.dumps(done.rows[0], default=str))
    small = root / f"{name}.mini.safetensors"
    small.unlink(missing_ok=True)
    return convert_weights(name, str(weights), small)


def join(store: Store, files: Mapping[str, Path]) -> FuseResult:
    """Embed the warehouse with the weights of each encoder, and join their vectors."""
    members = []
    for name, weights in files.items():
        done = store.embed(f"{name}.mini", weights=weights, device="cpu")
        members.append(f"{name}.mini@{done.version}")
    return store.fuse(members, name=f"teachers-of-{list(files)[-1]}", fit="all", scale="none")


def twin(name: str, path: Path) -> Path:
    """Write the weights that the training of an encoder began with."""
    method = methods.get(name).of(SIZE, RECIPES[name][0].get("settings", {}))
    method.start(SEED)
    state = {key: one.detach().clone() for key, one in method.state_dict().items()}
    tensors = {key: one.contiguous() for key, one in method.published(state).items()}
    path.unlink(missing_ok=True)
    write_safetensors(path, tensors, settings=method.configuration.settings(), source="")
    return path


def embed(store: Store, root: Path, name: str) -> tuple[str, str]:
    """Embed the warehouse with an encoder and its twin; return both feature sets."""
    encoder = root / f"{name}.mini.safetensors"
    files = (encoder, twin(name, root / f"{name}.twin.safetensors"))
    versions = [store.embed(f"{name}.mini", weights=one, device="cpu").version for one in files]
    return f"{name}.mini@{versions[0]}", f"{name}.mini@{versions[1]}"


def look(root: Path, names: list[str]) -> None:
    """Print what can be told of synthetic hearts from the vectors of each.

    R² of ridge regression, fitted to 1,000 records, to the truth behind the others; and AUROC of
    logistic regression, fitted to 300 records and scored on the others, mean over five such 300.
    """
    made = {
        "varied": cohort(UNSEEN, seed=18, acs=ACS, varied=True),
        "retaken": cohort(UNSEEN, seed=19, acs=ACS, retaken=True),
    }
    unseen = {f"{kind}/{one.name}": one for kind, records in made.items() for one in records}
    with Store(root / "unseen") as store:
        for kind in made:
            if not (files := root / f"unseen-{kind}").exists():
                write_wfdb(files, [one for key, one in unseen.items() if key.startswith(kind)])
            store.ingest(files, dataset=kind, keep_ids=True)
        for name in names:
            for features in embed(store, root, name):
                told = []
                for kind, truths in TRUTH.items():
                    x, people = _vectors(store, features, kind, unseen)
                    for what, truth in truths.items():
                        y = np.array([np.ravel(truth(one.patient)) for one in people])
                        told.append(f"{what} {_r2(x, y):.2f}")
                    for what, change in CHANGES.items():
                        y = np.array([one.patient.condition == change for one in people])
                        told.append(f"{what} {_auroc_of_few(x, y):.3f}")
                print(features, ", ".join(told))


def _vectors(
    store: Store, features: str, kind: str, unseen: Mapping[str, SyntheticRecord]
) -> tuple[NDArray[np.float64], list[SyntheticRecord]]:
    """Return the vectors of a cohort, and what is known of each."""
    table = store.table(
        "select record_id, embedding from embeddings join records using (record_id) "
        "where version = $version and dataset = $kind order by record_id",
        {"version": features.partition("@")[2], "kind": kind},
    )
    names = [one.split("/")[-1] for one in table["record_id"].to_pylist()]
    return np.stack(table["embedding"].to_pylist()), [unseen[f"{kind}/{one}"] for one in names]


def _r2(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 4, 9)))
    guess = model.fit(x[:1000], y[:1000]).predict(x[1000:])
    missed = guess.reshape(len(guess), -1) - y[1000:]
    return float((1 - np.square(missed).mean(axis=0) / y[1000:].var(axis=0)).mean())


def _auroc_of_few(x: NDArray[np.float64], y: NDArray[np.bool_]) -> float:
    found, few = [], 300
    for begin in range(0, 5 * few, few):
        rest = np.r_[:begin, begin + few : len(x)]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=2000))
        model.fit(x[begin : begin + few], y[begin : begin + few])
        found.append(roc_auc_score(y[rest], model.decision_function(x[rest])))
    return float(np.mean(found))


def evaluate(root: Path, data: Path, names: list[str]) -> None:
    """Score minis, twins and the fusion of the minis, and print the tables of the cards."""
    with Store(root / "evaluation") as store:
        store.ingest(data / "ptbxl", dataset="ptbxl", rate=500)
        embedded = [embed(store, root, name) for name in names]
        minis, twins = [one[0] for one in embedded], [one[1] for one in embedded]
        features: list[Any] = [*minis, *twins]
        pairs = list(embedded)
        if len(names) > 1:
            features.append(store.fuse(minis, name="minis"))
            pairs += [("minis", mini) for mini in minis]
        for classifier, called in CLASSIFIERS.items():
            scores = store.evaluate(
                features,
                protocol="sound",
                task=list(TASKS),
                classifier=classifier,
                progress=Silent(),
            )
            found = {(one.task, one.features): one for one in scores.scores}
            for task in TASKS:
                for a, b in pairs:
                    better, worse = found[task, a], found[task, b]
                    (pair,) = store.compare([better.run_id, worse.run_id], metric="AUROC").rows
                    print(f"| {a}, {b} | {task} against the rest, {called} |", end=" ")
                    print(" | ".join([_auroc(better), _auroc(worse), *_difference(pair)]), "|")


def _auroc(score: Score) -> str:
    known = score.intervals["AUROC"]
    return f"{known.value:.3f} [{known.low:.3f}, {known.high:.3f}]"


def _difference(pair: dict[str, Any]) -> list[str]:
    ps = (pair[f"p_{name}"] for name in ("corrected", "delong", "permutation"))
    told = "{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**pair)
    return [told, *("" if p is None else f"{p:.2g}" for p in ps)]


def main() -> None:
    """Do one step, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = ("cohort", "train", "look", "evaluate", "package")
    parser.add_argument("step", nargs="?", choices=steps)
    parser.add_argument("--root", type=Path, required=True, help="folder that all is made in")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--only", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    options = parser.parse_args()
    options.root.mkdir(parents=True, exist_ok=True)
    wanted = steps if options.step is None else (options.step,)
    if "cohort" in wanted:
        make_cohort(options.root, options.data, options.records)
    if "train" in wanted:
        for name in options.only:
            train(options.root, name)
    if "look" in wanted:
        look(options.root, options.only)
    if "evaluate" in wanted:
        evaluate(options.root, options.data, options.only)
    if "package" in wanted:
        for name in options.only:
            shutil.copyfile(
                options.root / f"{name}.mini.safetensors", MINIS / f"{name}.mini.safetensors"
            )


if __name__ == "__main__":
    main()
