"""The part of the facade that trains encoders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ecgstore.embedding import EmbeddingStore
from ecgstore.opened import name_of
from ecgstore.settings import device_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.finetuning import FinetuneResult
    from ecgstore.fuse import FuseResult
    from ecgstore.pretraining.training import PretrainResult
    from ecgstore.progress import Progress
    from ecgstore.splitting.split import SplitResult

__all__ = ["TrainingStore", "list_methods"]


class TrainingStore(EmbeddingStore):
    """A warehouse on whose records encoders are trained."""

    def pretrain(
        self,
        model: str,
        *,
        size: str | None = None,
        steps: int | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        where: str | None = None,
        weights: str | Path | None = None,
        settings: Mapping[str, object] | None = None,
        batch_size: int | None = None,
        accumulate: int = 1,
        learning_rate: float | None = None,
        seed: int = 0,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        device: str | None = None,
        checkpoint_every: int | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> PretrainResult:
        """Train an encoder on records without labels; see `ecgstore.pretraining.training`.

        Args:
            model: Name of the method, such as ``stmem``.
            size: One of its sizes; ``base`` is as published.
            steps: Updates; default the epochs of the published recipe.
            out: Folder of the run; default ``pretrained/MODEL``.
            resume: Go on with the run in that folder.
            where: SQL predicate over ``records``.
            weights: File to start from instead of random weights.
            settings: Settings of the method that differ from the published.
            batch_size: Pieces of records an update.
            accumulate: Parts of a batch that are computed one after another.
            learning_rate: Highest learning rate.
            seed: Of starting weights, order and all that is drawn.
            precision: ``fp32``, ``bf16`` or ``auto``.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            checkpoint_every: Updates between checkpoints.
            dry_run: Count and write nothing.
            progress: Told of every step.
        """
        from ecgstore.pretraining.training import pretrain

        return pretrain(
            self._now(),
            model,
            size=size,
            steps=steps,
            out=None if out is None else Path(out),
            resume=resume,
            where=where,
            weights=None if weights is None else Path(weights),
            settings=settings,
            batch_size=batch_size,
            accumulate=accumulate,
            learning_rate=learning_rate,
            seed=seed,
            precision=precision,
            device=device_name(device),
            checkpoint_every=checkpoint_every,
            dry_run=dry_run,
            progress=progress,
        )

    def finetune(
        self,
        model: str,
        *,
        split: str | SplitResult,
        tasks: Sequence[str] = (),
        repeat: int | None = None,
        target: Literal["binary", "continuous"] | None = None,
        weights: str | Path | None = None,
        settings: Mapping[str, object] | None = None,
        preset: str | None = None,
        head: Literal["linear", "attention", "mlp"] | None = None,
        freeze: str | int | None = None,
        layer_decay: float | None = None,
        class_weights: bool | None = None,
        epochs: int | None = None,
        patience: int | None = None,
        validation: float = 0.15,
        batch_size: int | None = None,
        accumulate: int = 1,
        learning_rate: float | None = None,
        seed: int = 0,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        device: str | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> FinetuneResult:
        """Train an encoder with a head on labels; see `ecgstore.finetuning.finetune`."""
        from ecgstore.finetuning import finetune

        return finetune(
            self._now(),
            model,
            split=name_of(split),
            tasks=tasks,
            repeat=repeat,
            target=target,
            weights=None if weights is None else Path(weights),
            settings=settings,
            preset=preset,
            head=head,
            freeze=freeze,
            layer_decay=layer_decay,
            class_weights=class_weights,
            epochs=epochs,
            patience=patience,
            validation=validation,
            batch_size=batch_size,
            accumulate=accumulate,
            learning_rate=learning_rate,
            seed=seed,
            precision=precision,
            device=device_name(device),
            out=None if out is None else Path(out),
            resume=resume,
            dry_run=dry_run,
            progress=progress,
        )

    def distil(
        self,
        student: str,
        *,
        teacher: str | FuseResult,
        size: str | None = None,
        weights: str | Path | None = None,
        where: str | None = None,
        split: str | SplitResult | None = None,
        repeat: int | None = None,
        steps: int | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        batch_size: int | None = None,
        accumulate: int = 1,
        learning_rate: float | None = None,
        seed: int = 0,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        device: str | None = None,
        checkpoint_every: int | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> PretrainResult:
        """Teach a small encoder the stored vectors of a large one.

        See `ecgstore.pretraining.distil.distil`, which has the same arguments.
        """
        from ecgstore.pretraining.distil import distil

        return distil(
            self._now(),
            student,
            teacher=name_of(teacher),
            size=size,
            weights=None if weights is None else Path(weights),
            where=where,
            split=None if split is None else name_of(split),
            repeat=repeat,
            steps=steps,
            out=None if out is None else Path(out),
            resume=resume,
            batch_size=batch_size,
            accumulate=accumulate,
            learning_rate=learning_rate,
            seed=seed,
            precision=precision,
            device=device_name(device),
            checkpoint_every=checkpoint_every,
            dry_run=dry_run,
            progress=progress,
        )


def list_methods(pattern: str = "*") -> list[str]:
    """Return the names of the methods that `Store.pretrain` knows, such as ``stmem``."""
    from ecgstore.pretraining import methods

    return methods.names(pattern)
