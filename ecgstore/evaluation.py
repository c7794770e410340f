"""The part of the facade that asks what predictions are worth: compare, explain, for whom."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ecgstore.opened import name_of
from ecgstore.teaching import TrainingStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from ecgstore.explain import Explanation, ShapResult
    from ecgstore.fuse import FuseResult
    from ecgstore.laboratory.clinical import ClinicalResult
    from ecgstore.laboratory.compare import CompareResult
    from ecgstore.laboratory.complementarity import ComplementarityResult
    from ecgstore.laboratory.learning_curve import LearningCurveResult
    from ecgstore.laboratory.probes import ProbeResult
    from ecgstore.laboratory.subgroups import SubgroupsResult
    from ecgstore.predict import PredictResult
    from ecgstore.progress import Progress
    from ecgstore.report import ReportResult
    from ecgstore.splitting.dividing import Method
    from ecgstore.splitting.split import SplitResult
    from ecgstore.splitting.split_check import CheckResult
    from ecgstore.statistics.multiple import Correction
    from ecgstore.statistics.recalibration import RecalibrationMethod

__all__ = ["EvaluationStore"]


class EvaluationStore(TrainingStore):
    """A warehouse whose runs are examined."""

    def predict(
        self, run: str, *, where: str | None = None, progress: Progress | None = None
    ) -> PredictResult:
        """Score records with the classifiers of a trained run; see `ecgstore.predict.predict`."""
        from ecgstore.predict import predict

        return predict(self.warehouse, run, where=where, progress=progress)

    def split(
        self,
        name: str,
        *,
        task: str | Sequence[str],
        method: Method = "shuffle",
        repeats: int | None = None,
        folds: int = 5,
        test_size: float = 0.2,
        seed: int = 0,
        group: Literal["patient_id", "none"] = "patient_id",
        before: str | date | None = None,
        inner: int = 0,
        protocol: str | None = None,
        target: str | None = None,
        dry_run: bool = False,
    ) -> SplitResult:
        """Divide labelled records; see `ecgstore.splitting.split.split`."""
        from ecgstore.splitting.split import split

        return split(
            self._now(),
            name,
            task=task,
            method=method,
            repeats=repeats,
            folds=folds,
            test_size=test_size,
            seed=seed,
            group=group,
            before=before,
            inner=inner,
            protocol=protocol,
            target=target,
            dry_run=dry_run,
        )

    def check_split(self, name: str | SplitResult) -> CheckResult:
        """Prove that nothing crosses in a split; see `ecgstore.splitting.split_check.check`."""
        from ecgstore.splitting.split_check import check

        return check(self.warehouse, name_of(name))

    def compare(
        self,
        runs: Sequence[str],
        *,
        metric: str | None = None,
        correction: Correction = "holm",
        resamples: int = 2000,
        seed: int = 0,
        level: float = 0.95,
    ) -> CompareResult:
        """Say whether one run is better than another; see `ecgstore.laboratory.compare.compare`."""
        from ecgstore.laboratory.compare import compare

        return compare(
            self.warehouse,
            runs,
            metric=metric,
            correction=correction,
            resamples=resamples,
            seed=seed,
            level=level,
        )

    def clinical(
        self,
        run: str,
        *,
        sensitivities: Sequence[float] = (0.90, 0.95, 0.99),
        specificities: Sequence[float] = (),
        thresholds: Sequence[float] = (),
        youden: bool = False,
        prevalence: float | Sequence[float] | None = None,
        recalibrate: RecalibrationMethod | None = None,
        resamples: int = 2000,
        seed: int = 0,
    ) -> ClinicalResult:
        """Tell what scores do at thresholds; see `ecgstore.laboratory.clinical.clinical`."""
        from ecgstore.laboratory.clinical import clinical

        return clinical(
            self.warehouse,
            run,
            sensitivities=sensitivities,
            specificities=specificities,
            thresholds=thresholds,
            youden=youden,
            prevalence=prevalence,
            recalibrate=recalibrate,
            resamples=resamples,
            seed=seed,
        )

    def complementarity(
        self,
        split: str,
        *,
        features: Sequence[str],
        fused: str,
        task: str | None = None,
        classifier: str | None = None,
        resamples: int = 2000,
        seed: int = 0,
    ) -> ComplementarityResult:
        """Tell what models add to each other; see `ecgstore.laboratory.complementarity`."""
        from ecgstore.laboratory.complementarity import complementarity

        return complementarity(
            self.warehouse,
            split,
            features=features,
            fused=fused,
            task=task,
            classifier=classifier,
            resamples=resamples,
            seed=seed,
        )

    def subgroups(
        self,
        run: str,
        by: str | Sequence[str],
        *,
        metrics: Sequence[str] | None = None,
        least: int = 10,
        resamples: int = 2000,
        seed: int = 0,
        level: float = 0.95,
    ) -> SubgroupsResult:
        """Tell how well a run does in each group; see `ecgstore.laboratory.subgroups.subgroups`."""
        from ecgstore.laboratory.subgroups import subgroups

        return subgroups(
            self.warehouse,
            run,
            by,
            metrics=metrics,
            least=least,
            resamples=resamples,
            seed=seed,
            level=level,
        )

    def probe(
        self,
        features: Sequence[str | FuseResult],
        *,
        concepts: Sequence[str] | None = None,
        task: str | None = None,
        split: str | SplitResult | None = None,
        folds: int = 5,
        resamples: int = 2000,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> ProbeResult:
        """Tell what is in vectors; see `ecgstore.laboratory.probes.probe`."""
        from ecgstore.laboratory.probes import probe

        return probe(
            self.warehouse,
            [name_of(one) for one in features],
            concepts=concepts,
            task=task,
            split=None if split is None else name_of(split),
            folds=folds,
            resamples=resamples,
            seed=seed,
            progress=progress,
        )

    def learning_curve(
        self,
        features: Sequence[str | FuseResult],
        split: str | SplitResult,
        *,
        fractions: Sequence[float] = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0),
        classifier: str = "logistic",
        baseline: str | None = None,
        metric: str | None = None,
        task: str | None = None,
        params: Mapping[str, object] | None = None,
        resamples: int = 1000,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> LearningCurveResult:
        """Tell what fewer labels would do; see `ecgstore.laboratory.learning_curve`."""
        from ecgstore.laboratory.learning_curve import learning_curve

        return learning_curve(
            self.warehouse,
            [name_of(one) for one in features],
            name_of(split),
            fractions=fractions,
            classifier=classifier,
            baseline=baseline,
            metric=metric,
            task=task,
            params=params,
            resamples=resamples,
            seed=seed,
            progress=progress,
        )

    def explain(
        self,
        run: str,
        *,
        record: str | None = None,
        method: Literal["shap", "occlusion", "gradients"] | None = None,
        repeat: int = 0,
        where: str | None = None,
        weights: Sequence[str | Path | None] | None = None,
        settings: Sequence[Mapping[str, object]] | None = None,
        device: str | None = None,
        window_s: float = 0.2,
        out: str | Path | None = None,
        progress: Progress | None = None,
    ) -> ShapResult | Explanation:
        """Tell why a trained run gives its scores; see `ecgstore.explain.explain`."""
        from ecgstore.explain import explain

        return explain(
            self.warehouse,
            run,
            record=record,
            method=method,
            repeat=repeat,
            where=where,
            weights=weights,
            settings=settings,
            device=device,
            window_s=window_s,
            out=out,
            progress=progress,
        )

    def report(
        self,
        out: str | Path = "report.html",
        *,
        split: str | SplitResult | None = None,
        title: str | None = None,
        by: Sequence[str] = (),
        form: str | None = None,
        resamples: int = 2000,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> ReportResult:
        """Write the page, Markdown or figures of a split; see `ecgstore.report.report`."""
        from ecgstore.report import report

        return report(
            self.warehouse,
            Path(out),
            split=None if split is None else name_of(split),
            title=title,
            by=by,
            form=form,
            resamples=resamples,
            seed=seed,
            progress=progress,
        )
