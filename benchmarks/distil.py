"""What a small encoder keeps of a large one that it was taught by: retained AUROC.

    python benchmarks/distil.py --records 600                     synthetic ECGs, task ACS
    python benchmarks/distil.py --warehouse W --task MI --teacher ecgfm@…   one's own, in a copy

A student of small size is taught on the training records of a split and tested on the others, with
the same classifier as its teacher and as itself before the first step, on the same reshuffle.
Printed is what is above chance: ``(AUROC of the student - 0.5) / (AUROC of the teacher - 0.5)``,
and the same of the untrained student; beside them the share of the variance of the teacher's
vectors that a ridge regression from the student's explains on the test records. A student that
keeps no more than it had before its first step has learned nothing that the task needs, whatever
its loss says.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from ecgstore.catalog import Catalog
from ecgstore.features import feature_set, matrix
from ecgstore.models.weights import write_safetensors
from ecgstore.pretraining import methods
from ecgstore.splitting.reshuffles import Reshuffle, reshuffles
from ecgstore.store import Store
from ecgstore.synthetic import cohort, write_wfdb


def synthetic(root: Path, records: int) -> None:
    """Fill a warehouse with synthetic ECGs and their labels."""
    labels = write_wfdb(root / "ecgs", cohort(records, seed=0))
    with Store(root / "warehouse") as store:
        store.ingest(root / "ecgs", dataset="synthetic", keep_ids=True)
        store.label(labels, task="ACS", label="ACS", patient="patient_id", keep_ids=True)


def untrained(student: str, size: str, path: Path) -> Path:
    """Write the weights a student starts from."""
    kind = methods.get(student)
    method = kind(kind.sizes[size])
    method.start(0)
    tensors = {key: one.detach().clone() for key, one in method.state_dict().items()}
    published = {key: one.contiguous() for key, one in method.published(tensors).items()}
    write_safetensors(path, published, settings=method.configuration.settings(), source="")
    return path


def explained(catalog: Catalog, teacher: str, student: str, split: Reshuffle) -> float:
    """Return what a student's vectors explain of the variance of its teacher's on test records."""
    sets = [feature_set(catalog, name) for name in (student, teacher)]
    members = [one for found in sets for one in found.members]
    ids, blocks = matrix(catalog, members)
    train, test = np.isin(ids, split.train), np.isin(ids, split.test)
    x, y = blocks[0], np.concatenate(blocks[1:], axis=1)
    x, y = ((one - one[train].mean(0)) / (one[train].std(0) + 1e-6) for one in (x, y))
    inner = x[train].T @ x[train] + 0.1 * train.sum() * np.eye(x.shape[1])
    fitted = x[test] @ np.linalg.solve(inner, x[train].T @ y[train])
    return float(1 - np.square(y[test] - fitted).sum() / np.square(y[test]).sum())


def main() -> None:
    """Teach, embed, evaluate, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--warehouse", type=Path, help="default: synthetic ECGs")
    parser.add_argument("--records", type=int, default=600, help="synthetic ECGs")
    parser.add_argument("--task", default="ACS")
    parser.add_argument(
        "--teacher",
        default="ecgfm.mini",
        help="feature set; of synthetic ECGs models in the box, joined by commas",
    )
    parser.add_argument("--student", default="stmem")
    parser.add_argument("--size", default="mini")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=1, help="reshuffles, a student for each")
    parser.add_argument("--classifier", default="logistic")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    kind = methods.get(options.student)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if options.warehouse is None:
            synthetic(root, options.records)
        else:
            shutil.copytree(options.warehouse, root / "warehouse")
        with Store(root / "warehouse") as store:
            if options.warehouse is None:
                models = options.teacher.split(",")
                for model in models:
                    store.embed(model, device="cpu")
                if len(models) > 1:
                    options.teacher = store.fuse(models, name="teacher").name
            split = store.split("distil", task=options.task, repeats=options.repeats)
            start = store.embed(
                kind.model, weights=untrained(options.student, options.size, root / "start")
            )
            for repeat in range(options.repeats):
                done = store.distil(
                    options.student,
                    teacher=options.teacher,
                    size=options.size,
                    split=split,
                    repeat=repeat,
                    steps=options.steps,
                    batch_size=options.batch,
                    out=root / f"student{repeat}",
                )
                taught = store.embed(kind.model, weights=done.weights)
                names = [options.teacher, *(f"{kind.model}@{x.version}" for x in (taught, start))]
                found = store.evaluate(names, split, only=[repeat], classifier=options.classifier)
                teacher, student, before = (one.values["AUROC"][0] for one in found.scores)
                with Catalog(store.warehouse.relations()) as catalog:
                    part = reshuffles(catalog, split.name)[repeat]
                    shares = [explained(catalog, options.teacher, name, part) for name in names[1:]]
                rows.append(
                    {
                        "reshuffle": repeat,
                        "loss, first to last": f"{done.first:.3f} to {done.loss:.3f}",
                        "AUROC, teacher": teacher,
                        "AUROC, student": student,
                        "AUROC, untrained student": before,
                        "explained by the student": shares[0],
                        "explained by the untrained student": shares[1],
                        "retained": (student - 0.5) / (teacher - 0.5),
                        "retained, untrained": (before - 0.5) / (teacher - 0.5),
                    }
                )
    means = {
        what: float(np.mean([row[what] for row in rows]))  # type: ignore[arg-type]
        for what in ("retained", "retained, untrained")
    }
    rows.append({"reshuffle": "mean", **means})
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        for what, value in row.items():
            print(f"{what:36}{f'{value:.4g}' if isinstance(value, float) else value}")
        print()


if __name__ == "__main__":
    main()
