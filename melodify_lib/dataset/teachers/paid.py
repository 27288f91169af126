"""A teacher that is a language model behind an address: many questions at a time, inside a budget, never paid twice.

What differs between services is a `Model`; `openai.py` and `gemini.py` have one each.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from melodify_lib.cloud import loop, retry
from melodify_lib.cloud.prices import BYTES_A_TOKEN, Price, require_budget
from melodify_lib.dataset.form import Example
from melodify_lib.dataset.tables import Tables
from melodify_lib.dataset.teachers import Assignment, Estimate, Progress, Taught, Terms, prompt
from melodify_lib.dataset.teachers.journal import JOURNAL_FILE, Answered, Journal, open_journal
from melodify_lib.errors import BudgetError, CloudError
from melodify_lib.nouns import sha256

if TYPE_CHECKING:
    from tenacity import RetryCallState

ATTEMPTS = 3
"""Answers that an assignment gets before it is dropped."""
TRIES = 5
"""How often one question is sent while the service is busy or the connection breaks."""
IN_FLIGHT = 8
"""Questions that wait for an answer at the same time."""
MAX_OUTPUT_TOKENS = 2_000
EXPECTED_OUTPUT_TOKENS = 400
_MAYBE_BILLED = (None, 408, 504)  # no answer came, though the model may have written one
_AROUND = len(prompt.INSTRUCTION.encode()) + len(str(prompt.Answer.model_json_schema()))  # bytes beside a question
_SPARE = 1.1  # of the estimate: some answers are asked for again


@dataclass(frozen=True)
class Reply:
    """What a model answered, and the tokens that it bills; `problem` says why there is no text, if there is none."""

    text: str
    input_tokens: int
    output_tokens: int
    problem: str = ""


class Model(Protocol):
    """A language model that answers in the form of `prompt.Answer`."""

    @property
    def name(self) -> str:
        """Its name in the price table."""
        ...

    async def ask(self, instruction: str, question: str, max_tokens: int) -> Reply:
        """One answer of at most `max_tokens`, thinking included. Raises `CloudError`; it does not try again."""
        ...

    def open(self) -> None:
        """Make ready to ask, again after `close`."""
        ...

    async def close(self) -> None: ...


class PaidTeacher:
    """Teaches with a `Model`, on `Terms`."""

    def __init__(self, model: Model, price: Price, terms: Terms) -> None:
        self.model = model
        self.price = price
        self.terms = terms

    def teach(self, assignments: Sequence[Assignment], tables: Tables, on_progress: Progress | None = None) -> Taught:
        """An example for each assignment, or None. Raises `BudgetError` before the budget would be passed."""
        with open_journal(self.terms.folder) as journal:
            lesson = _Lesson(self, journal, assignments, tables, on_progress)
            loop.run(lesson.hold)
            return lesson.taught()


class _Lesson:
    """One run of `PaidTeacher.teach`."""

    def __init__(
        self,
        teacher: PaidTeacher,
        journal: Journal,
        assignments: Sequence[Assignment],
        tables: Tables,
        on_progress: Progress | None,
    ) -> None:
        self.model, self.price, self.terms = teacher.model, teacher.price, teacher.terms
        self.journal, self.tables, self.on_progress = journal, tables, on_progress
        self.assignments = assignments
        self.questions = [prompt.question(assignment, tables) for assignment in assignments]
        self.keys = [
            sha256(f"{prompt.VERSION} {self.model.name} {assignment.seed} {prompt.put(asked)}".encode())
            for assignment, asked in zip(assignments, self.questions, strict=True)
        ]
        self.examples: list[Example | None] = [None] * len(assignments)
        self.unfit: list[list[prompt.Unfit]] = [[] for _ in assignments]
        self.seen: set[str] = set()
        self.paid = asyncio.Condition()
        self.in_flight = 0
        self.budget = 0.0
        self.failure: Exception | None = None
        self._recall()

    def taught(self) -> Taught:
        dropped = Counter(self.unfit[row][-1].kind for row, example in enumerate(self.examples) if example is None)
        return Taught(self.examples, dict(dropped), self.journal.spent)

    async def hold(self) -> None:
        """Ask for everything that is not known yet."""
        from aiolimiter import AsyncLimiter

        self.model.open()
        try:
            self._agree()
            self._report()
            # One at a time, evenly: a bucket that is full at the start lets twice the rate through in its first minute.
            self.pace = AsyncLimiter(1, 60 / self.terms.rate)
            rows = self._open_rows()
            await asyncio.gather(*(self._work(rows) for _ in range(IN_FLIGHT)))
        finally:
            await self.model.close()
        if self.failure is not None:
            raise self.failure

    def _recall(self) -> None:
        """Take up what the journal knows, in the order in which it was answered."""
        rows = {key: row for row, key in enumerate(self.keys)}
        for answer in self.journal.answers:
            row = rows.get(answer.key)
            if row is not None and self.examples[row] is None:
                self._judge(row, answer)

    def _agree(self) -> None:
        """Say what it would cost, and stop where that is not allowed."""
        rows = list(self._open_rows())
        if not rows:
            return
        asked = sum(len(prompt.put(self.questions[row])) + _AROUND for row in rows) / BYTES_A_TOKEN
        answered = len(rows) * EXPECTED_OUTPUT_TOKENS
        estimate = Estimate(
            model=self.model.name,
            requests=len(rows),
            input_tokens=round(asked * _SPARE),
            output_tokens=round(answered * _SPARE),
            dollars=self.price.of(asked, answered) * _SPARE,
            spent=self.journal.spent,
            source=f"list prices of {self.price.checked}: {self.price.source}",
        )
        if self.terms.on_estimate is not None:
            self.terms.on_estimate(estimate)
        what = f"{len(rows):,} examples by {self.model.name}"
        self.budget = require_budget(what, estimate.dollars, self.terms.budget, estimate.spent)

    def _open_rows(self) -> Iterator[int]:
        """Assignments that have no example yet, and are not given up."""
        for row, example in enumerate(self.examples):
            if example is None and len(self.unfit[row]) < ATTEMPTS:
                yield row

    async def _work(self, rows: Iterator[int]) -> None:
        for row in rows:
            while self.examples[row] is None and len(self.unfit[row]) < ATTEMPTS:
                if self.failure is not None:
                    return
                try:
                    await self._ask(row)
                except Exception as error:  # the others finish what they have asked, and it is kept
                    self.failure = error
                    return
            self._report()

    async def _ask(self, row: int) -> None:
        """One answer for `row`, judged and in the journal; asked for again while the service is busy."""
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

        # Not by the clients' own retries: those would pass by the rate limit, the budget and the journal.
        async for sending in AsyncRetrying(
            retry=retry_if_exception(retry.is_passing),
            stop=stop_after_attempt(TRIES),
            wait=_pause,
            reraise=True,
        ):
            with sending:
                await self.pace.acquire()
                await self._send(row)

    async def _send(self, row: int) -> None:
        key, attempt = self.keys[row], len(self.unfit[row]) + 1
        text = prompt.put(self.questions[row], str(self.unfit[row][-1]) if self.unfit[row] else "")
        await self._afford(key, attempt, text)
        try:
            reply = await self._reply(text)
        except CloudError as error:
            if error.is_unsent or error.status not in _MAYBE_BILLED:
                self.journal.unserved(key, attempt)
            raise
        else:
            answer = (
                Answered(key, kind="no answer", reason=reply.problem) if reply.problem else Answered(key, reply.text)
            )
            cost = self.price.of(reply.input_tokens, reply.output_tokens)
            self.journal.answered(self._judge(row, answer), attempt, cost)
        finally:
            async with self.paid:
                self.in_flight -= 1
                self.paid.notify_all()

    async def _reply(self, text: str) -> Reply:
        """The model's answer within a time: the clients' own limit starts anew with each byte that arrives."""
        try:
            async with asyncio.timeout(retry.TIMEOUT_S):
                return await self.model.ask(prompt.INSTRUCTION, text, MAX_OUTPUT_TOKENS)
        except TimeoutError:
            raise CloudError(f"{self.model.name} gave no whole answer in {retry.TIMEOUT_S:g} s") from None

    async def _afford(self, key: str, attempt: int, text: str) -> None:
        """Take the money for one request at its most, or wait for others to give back what they did not need."""
        most = self.price.of(len(text.encode()) + _AROUND, MAX_OUTPUT_TOKENS)
        async with self.paid:
            while self.journal.spent + most > self.budget:
                if not self.in_flight:
                    raise BudgetError(
                        f"the budget of ${self.budget:.2f} is used up: ${self.journal.spent:.4f} is spent, and another "
                        f"request may cost ${most:.4f}; {self._done():,} of {len(self.examples):,} examples are kept "
                        f"in {self.terms.folder / JOURNAL_FILE}: run it again with a larger --budget to go on"
                    )
                await self.paid.wait()
            self.in_flight += 1
            self.journal.asked(key, attempt, most)

    def _judge(self, row: int, answer: Answered) -> Answered:
        """Make the answer an example, or remember why not; returns what goes into the journal."""
        try:
            if answer.text is None:
                raise prompt.Unfit(answer.kind, answer.reason)
            example = prompt.read(answer.text, self.assignments[row], self.tables)
            texts = {_folded(example.caption), _folded(example.description.description)}
            if texts & self.seen:
                raise prompt.Unfit("seen before", "another example has the same caption or description; word it anew")
        except prompt.Unfit as unfit:
            self.unfit[row].append(unfit)
            return Answered(answer.key, kind=unfit.kind, reason=str(unfit))
        self.seen |= texts
        self.examples[row] = example
        return answer

    def _done(self) -> int:
        return sum(example is not None for example in self.examples)

    def _report(self) -> None:
        if self.on_progress is not None:
            self.on_progress(len(self.examples) - sum(1 for _ in self._open_rows()), len(self.examples))


def _folded(text: str) -> str:
    """What two texts have in common that differ in case and spaces only."""
    return " ".join(text.casefold().split())


def _pause(state: RetryCallState) -> float:
    return min(retry.pause(state), retry.LONGEST_PAUSE_S)
