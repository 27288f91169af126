"""The Vertex tuner: Gemini is tuned on the JSONL by a job on Vertex AI, which is watched to its end.

The file goes to the bucket under the hash of its content, so it is uploaded once. The job carries
labels: one is the hash of all that was asked, and by it a job that is running, or has made a model
that is still there, is found and not paid for again.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from contextlib import closing, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from melodify_lib.cloud import clients, jobs, labels
from melodify_lib.cloud.prices import BYTES_A_TOKEN, price, require_budget
from melodify_lib.cloud.tuned import CARD_FILE, VertexCard
from melodify_lib.dataset.checks import MAX_VALIDATION_EXAMPLES
from melodify_lib.dataset.form import read
from melodify_lib.errors import BudgetError, CloudError, DatasetError, SettingsError
from melodify_lib.logs import redact
from melodify_lib.model_folder import prepare
from melodify_lib.nouns import sha256
from melodify_lib.tuning import Plan
from melodify_lib.tuning.local import TuningResult

if TYPE_CHECKING:
    from google.genai import types

    from melodify_lib.settings import Settings

POLL_S = 20.0
"""How often a job is looked at."""
ADAPTER_SIZES = {1: "ONE", 2: "TWO", 4: "FOUR", 8: "EIGHT", 16: "SIXTEEN", 32: "THIRTY_TWO"}
_DATASET = "melodify-dataset"
_FOLDER = "datasets"


def from_settings(settings: Settings, plan: Plan) -> VertexTuner:
    """A tuner of `settings.gemini_model`. Raises `PaidError` or `SettingsError` where it may not or cannot be used."""
    return VertexTuner(settings, plan)


@dataclass(frozen=True)
class _Order:
    """What is asked for: files by hash, the price, and the label by which the same order is found again."""

    train: Path
    validation: Path | None
    sha256: str
    validation_sha256: str | None
    label: str
    examples: int
    epochs: int
    tokens: int  # of the file, times epochs
    dollars: float
    dollars_a_token: float
    source: str


class VertexTuner:
    """Tunes a Gemini model on Vertex AI."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        if plan.adapter_size not in ADAPTER_SIZES:
            sizes = ", ".join(map(str, ADAPTER_SIZES))
            raise SettingsError(f"no adapter of size {plan.adapter_size}; there are {sizes}")
        if plan.epochs < 1:
            raise SettingsError(f"{plan.epochs} epochs; at least 1 is needed")
        self.settings = settings
        self.plan = plan
        self.client = clients.gemini(settings)

    def tune(
        self,
        train: Path,
        out: Path,
        *,
        validation: Path | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> TuningResult:
        """Tune on `train`, wait for it, and write ``vertex.json`` into the folder `out`.

        `on_progress` is called with epochs done and in all. An interrupt, whoever sends it (a notebook's time limit
        too), cancels the job: nobody waits for it any more. A watcher that is killed or loses the connection leaves it
        running: the same call finds it. Raises `BudgetError` before anything is sent, or when the service counts more
        tokens than the budget has room for, and `CloudError` when the job fails.
        """
        started = time.perf_counter()
        order = self._order(train, validation)
        prepare(out, CARD_FILE)
        job = self._find(order) or self._submit(order)
        job = self._watch(job, order, on_progress)
        card = self._card(job, order)
        card.save(out)
        return TuningResult(out, [], {}, _metrics(job, order), time.perf_counter() - started)

    def _order(self, train: Path, validation: Path | None) -> _Order:
        """Read the files, which must be valid, and reckon what it would cost."""
        examples, data = len(read(train)), train.read_bytes()
        if validation is not None and (count := len(read(validation))) > MAX_VALIDATION_EXAMPLES:
            raise DatasetError(f"{validation}: {count:,} validation examples; Vertex takes {MAX_VALIDATION_EXAMPLES:,}")
        model, plan = self.settings.gemini_model, self.plan
        of_model = price(model, self.settings)
        if of_model.tuning is None:
            raise SettingsError(f"the price table has no price for tuning {model}: add one, or choose another model")
        digest = sha256(data)
        of_held_out = sha256(validation.read_bytes()) if validation is not None else None
        asked = (digest, of_held_out, model, plan.epochs, plan.learning_rate_multiplier, plan.adapter_size)
        tokens = len(data) // BYTES_A_TOKEN * plan.epochs  # rather too many: the JSON's marks are counted too
        return _Order(
            train,
            validation,
            digest,
            of_held_out,
            sha256(repr(asked).encode())[:32],
            examples,
            plan.epochs,
            tokens,
            tokens * of_model.tuning / 1e6,
            of_model.tuning / 1e6,
            f"list price of {of_model.checked}: {of_model.tuning_source or of_model.source}",
        )

    def _find(self, order: _Order) -> types.TuningJob | None:
        """The newest job of the same order that is not lost: running, or with a model that is still there."""
        for job in jobs.all_jobs(self.settings, self.client):
            if (job.labels or {}).get(labels.REQUEST) != order.label:
                continue
            if job.has_succeeded and self._is_served(job):
                self.plan.on_event(f"the same was tuned before: {job.name}")
                return job
            if not job.has_ended and _state(job) != "CANCELLING":
                self.plan.on_event(f"the same is being tuned already: {job.name}")
                return job
        return None

    def _is_served(self, job: types.TuningJob) -> bool:
        """Is the job's model still there?"""
        return clients.find_google(self.settings, lambda: self.client.models.get(model=_model(job))) is not None

    def _submit(self, order: _Order) -> types.TuningJob:
        """Upload and order the job, if the budget allows it."""
        from google.genai import types

        plan, model = self.plan, self.settings.gemini_model
        what = f"tuning {model} on {order.tokens:,} tokens ({order.examples:,} examples, {plan.epochs} epochs)"
        plan.on_event(f"{what}: about ${order.dollars:.2f} ({order.source})")
        require_budget(what, order.dollars, plan.budget)
        uris = self._upload(order)
        config = types.CreateTuningJobConfig(
            tuned_model_display_name=f"melodify-{order.sha256[:12]}",
            epoch_count=plan.epochs,
            learning_rate_multiplier=plan.learning_rate_multiplier,
            adapter_size=types.AdapterSize(f"ADAPTER_SIZE_{ADAPTER_SIZES[plan.adapter_size]}"),
            validation_dataset=types.TuningValidationDataset(gcs_uri=uris[1]) if len(uris) > 1 else None,
            # Each checkpoint would be served by an endpoint of its own.
            export_last_checkpoint_only=True,
            labels={
                **labels.labels(self.settings, run=token_hex(8), request=order.label),
                _DATASET: order.sha256[:32],
            },
        )
        order_it = partial(
            self.client.tunings.tune,
            base_model=model,
            training_dataset=types.TuningDataset(gcs_uri=uris[0]),
            config=config,
        )
        try:
            with warnings.catch_warnings(), redirect_stdout(sys.stderr):  # as in `jobs`
                warnings.simplefilter("ignore")  # "experimental", though there is no other way
                # An order whose answer was lost may have been taken.
                job: types.TuningJob = clients.ask_google(self.settings, order_it, is_repeatable=False)
        except CloudError as error:
            taken = self._find(order) if error.status is None or error.status >= 500 else None
            if taken is None:
                raise
            return taken
        plan.on_event(f"ordered: {job.name}")
        return self._older(job, order)

    def _older(self, job: types.TuningJob, order: _Order) -> types.TuningJob:
        """`job`, or an older one that another process ordered in the meantime; then `job` is cancelled.

        Both processes look after they have ordered, so at least the second sees the first's, and both go by
        the same order of age.
        """
        rivals = [
            one
            for one in jobs.all_jobs(self.settings, self.client)
            if (one.labels or {}).get(labels.REQUEST) == order.label
            and (one.name == job.name or (not one.has_ended and _state(one) != "CANCELLING"))
        ]
        oldest = min(rivals, key=_age, default=job)
        if oldest.name == job.name or not job.name:
            return job
        self.plan.on_event(f"the same was ordered by another just before: {oldest.name}")
        self._cancel(job.name)
        return oldest

    def _upload(self, order: _Order) -> list[str]:
        """Put the files into the bucket, unless they are there; returns their gs:// addresses."""
        from google.api_core.exceptions import PreconditionFailed

        if not self.settings.bucket:
            raise SettingsError("no bucket for the dataset: set MELODIFY_BUCKET")
        files = [(order.train, order.sha256)]
        if order.validation is not None and order.validation_sha256 is not None:
            files.append((order.validation, order.validation_sha256))
        uris = []
        with (
            clients.google_errors(self.settings, "Cloud Storage"),
            closing(clients.storage_client(self.settings)) as storage,
        ):
            bucket = storage.bucket(self.settings.bucket)
            for path, digest in files:
                blob = bucket.blob(f"{_FOLDER}/{digest}.jsonl")
                with suppress(PreconditionFailed):  # named by its content, so what is there is the same
                    blob.upload_from_filename(path, content_type="application/jsonl", if_generation_match=0)
                uris.append(f"gs://{self.settings.bucket}/{blob.name}")
        return uris

    def _watch(
        self, job: types.TuningJob, order: _Order, on_progress: Callable[[int, int], None] | None
    ) -> types.TuningJob:
        """The job when it has succeeded. Raises `CloudError` with what it says when it has not."""
        said, is_cancelled = "", False
        name = job.name or ""
        try:
            while True:
                if (state := _state(job)) != said:
                    self.plan.on_event(f"{name}: {state.lower()}")
                    said = state
                if on_progress is not None:
                    done = job.tuning_job_metadata.completed_epoch_count if job.tuning_job_metadata else 0
                    on_progress(self.plan.epochs if job.has_succeeded else done or 0, self.plan.epochs)
                if job.has_ended:
                    break
                if not is_cancelled and (self.plan.is_cancelled() or self._is_too_dear(job, order)):
                    is_cancelled = True
                    self._cancel(name)
                time.sleep(POLL_S)
                job = jobs.get_job(self.settings, self.client, name)
        except KeyboardInterrupt:
            if not is_cancelled:
                self._cancel(name)
            raise
        if self._is_too_dear(job, order) and not job.has_succeeded:
            raise BudgetError(
                f"{name} was cancelled: the service counts {_billed(job) * order.epochs:,} tokens, "
                f"${_billed(job) * order.epochs * order.dollars_a_token:.2f}; the budget is ${self.plan.budget:.2f}"
            )
        if not job.has_succeeded:
            message = redact(" ".join((job.error.message or "").split()), self.settings) if job.error else ""
            raise CloudError(f"the tuning job {_state(job).lower()}: {message or 'no reason given'} ({name})")
        return job

    def _is_too_dear(self, job: types.TuningJob, order: _Order) -> bool:
        """Does the service's own count pass the budget?"""
        budget = self.plan.budget
        return budget is not None and _billed(job) * order.epochs * order.dollars_a_token > budget

    def _cancel(self, name: str) -> None:
        self.plan.on_event(f"{name}: cancelling")
        clients.ask_google(self.settings, lambda: self.client.tunings.cancel(name=name))

    def _card(self, job: types.TuningJob, order: _Order) -> VertexCard:
        spec = job.supervised_tuning_spec
        if job.tuned_model is None or not job.tuned_model.endpoint:
            raise CloudError(f"the tuning job succeeded and names no endpoint ({job.name}); look at it in the console")
        files = (spec.training_dataset_uri, spec.validation_dataset_uri) if spec is not None else ()
        return VertexCard(
            asks=job.tuned_model.endpoint,
            base_model=self.settings.gemini_model,
            dataset_sha256=order.sha256,
            validation_sha256=order.validation_sha256,
            epochs=self.plan.epochs,
            learning_rate_multiplier=self.plan.learning_rate_multiplier,
            adapter_size=self.plan.adapter_size,
            job=job.name,
            model=job.tuned_model.model,
            experiment=job.experiment,
            files=tuple(uri for uri in files if uri),
            labels=job.labels or {},
        )


def _age(job: types.TuningJob) -> tuple[float, str]:
    """Sorts jobs, the oldest first; the name decides between two of the same moment."""
    return (job.create_time.timestamp() if job.create_time else 0.0, job.name or "")


def _state(job: types.TuningJob) -> str:
    return job.state.value.removeprefix("JOB_STATE_") if job.state is not None else "UNKNOWN"


def _model(job: types.TuningJob) -> str:
    return job.tuned_model.model if job.tuned_model is not None and job.tuned_model.model else ""


def _billed(job: types.TuningJob) -> int:
    """Tokens of the file, as the service counts them; 0 until it has."""
    stats = job.tuning_data_stats.supervised_tuning_data_stats if job.tuning_data_stats else None
    return (stats.total_billable_token_count or 0) if stats else 0


def _metrics(job: types.TuningJob, order: _Order) -> dict[str, float]:
    stats = job.tuning_data_stats.supervised_tuning_data_stats if job.tuning_data_stats else None
    tokens = _billed(job) * order.epochs or order.tokens
    steps = (stats.tuning_step_count or 0) if stats else 0
    return {
        "examples": order.examples,
        "dropped examples": (stats.total_truncated_example_count or 0) if stats else 0,
        "steps": steps,
        "billed tokens": tokens,
        "dollars": round(tokens * order.dollars_a_token, 4),
    }
