"""A class on the workers of a Dask cluster: sends batches, takes results as they come, sends again what was lost.

Dask moves work and nothing else. What is known, what counts and what is kept is decided here, as on one machine.
"""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distributed import Client, Future, KilledWorker, as_completed
from distributed.comm.addressing import resolve_address

from grader.course import Course, CourseError
from grader.grading.isolation import IsolationMissing
from grader.grading.remote import grade_batch
from grader.grading.result import Outcome, Verdict, from_json, ungraded
from grader.grading.store import environment
from grader.grading.worker import Job

MAX_BATCH = 10
"""Submissions: so many at most are graded again when a worker dies."""
BATCH_BYTES = 4 << 20
WINDOW = 2
"""Batches under way for each worker: one that it grades, one that waits at its side. The rest waits here."""
CONNECT_SECONDS = 10
JOIN_SECONDS = 60
"""How long to wait for the scheduler, and for its first worker."""

Done = Callable[[Job, Outcome], None]


def grade_on_cluster(address: str, terms: dict[str, Any], jobs: Sequence[Job], course: Course, done: Done) -> None:
    """Grade all jobs on the workers of the scheduler at `address`; `done` is called with each outcome as it arrives.

    Raises:
        CourseError: no scheduler or no worker is there, or a worker has another course, grader or version.
        IsolationMissing: a worker cannot confine student code and isolation was not waived.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said here, in one sentence
    warnings.filterwarnings("ignore", module="distributed")
    client = _connect(address)
    try:
        _Sending(client, address, terms, course, done).send_all(jobs)
    finally:
        client.close()


def _connect(address: str) -> Client:
    try:
        resolve_address(address)  # first: a client that fails on an address cannot be closed
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0] if isinstance(error, ValueError) else "nothing answers there"
        raise CourseError(f"no Dask scheduler at {address}: {why}. Start one with `dask scheduler`.") from None
    try:
        client.wait_for_workers(1, timeout=JOIN_SECONDS)
    except TimeoutError:
        client.close()
        raise CourseError(
            f"the scheduler at {address} has no worker after {JOIN_SECONDS} s. Start one with `dask worker {address}`."
        ) from None
    return client


@dataclass
class _Sending:
    client: Client
    address: str
    terms: dict[str, Any]
    course: Course
    done: Done
    _waiting: deque[list[Job]] = field(default_factory=deque)
    _under_way: dict[object, list[Job]] = field(default_factory=dict)
    _suspects: deque[Job] = field(default_factory=deque)
    """Workers died under a batch of theirs, or beside it. They come last, one at a time."""
    _suspected: set[int] = field(default_factory=set)

    def send_all(self, jobs: Sequence[Job]) -> None:
        self._waiting.extend(_batches(jobs, self._places()))
        arriving = as_completed(loop=self.client.loop)
        self._send(arriving)
        for future in arriving:
            self._take(future)
            future.release()  # a result that a worker still holds is made again if it dies
            self._send(arriving)

    def _places(self) -> int:
        threads: dict[str, int] = self.client.nthreads()  # asked again and again: workers come and go
        return max(1, sum(threads.values()))

    def _send(self, arriving: as_completed) -> None:
        room = WINDOW * self._places() - len(self._under_way)
        for _ in range(min(room, len(self._waiting))):
            self._submit(self._waiting.popleft(), arriving)
        if self._suspects and not self._under_way:  # alone on the cluster: if a worker dies now, it is for this one
            self._submit([self._suspects.popleft()], arriving)

    def _submit(self, batch: list[Job], arriving: as_completed) -> None:
        plain = [
            (job.number, job.submission.student, job.submission.chapter, dict(job.submission.files), job.key)
            for job in batch
        ]
        future = self.client.submit(grade_batch, self.terms, plain, pure=False, retries=0)
        self._under_way[future.key] = batch
        arriving.add(future)

    def _take(self, future: Future[dict[str, Any]]) -> None:
        batch = self._under_way.pop(future.key)
        if future.status == "finished":
            self._keep(batch, future.result())
            return
        if future.status != "error":
            raise CourseError(f"the scheduler at {self.address} went away; what is done is kept, run again to go on.")
        error = future.exception()
        if not isinstance(error, KilledWorker):
            raise CourseError(
                f"a worker of {self.address} cannot grade ({type(error).__name__}: {error}); it needs this version of "
                "the grader, installed or on its PYTHONPATH."
            )
        self._lose(batch)

    def _keep(self, batch: Sequence[Job], answer: dict[str, Any]) -> None:
        if "refused" in answer:
            kind = IsolationMissing if answer["unsafe"] else CourseError
            raise kind(f"worker {answer['worker']}: {answer['refused']}")
        outcomes = dict(answer["outcomes"])
        for job in batch:
            self.done(job, from_json(outcomes[job.number]))

    def _lose(self, batch: Sequence[Job]) -> None:
        """Put a batch aside under which workers died again and again; who was suspected before is left for a human."""
        for job in batch:
            if job.number in self._suspected:
                self.done(job, self._infra(job))
            else:
                self._suspected.add(job.number)
                self._suspects.append(job)

    def _infra(self, job: Job) -> Outcome:
        chapter = self.course.chapter(job.submission.chapter)
        outcome = ungraded(job.submission.student, chapter, Verdict.INFRA, "not graded: the workers that took it died")
        return replace(outcome, key=job.key, environment=dict(environment()))


def _batches(jobs: Sequence[Job], places: int) -> Iterator[list[Job]]:
    """Cut jobs into batches small enough for all workers to have some until near the end."""
    most = max(1, min(MAX_BATCH, len(jobs) // (2 * WINDOW * places)))
    batch: list[Job] = []
    size = 0
    for job in jobs:
        own = sum(map(len, job.submission.files.values()))
        if batch and (len(batch) == most or size + own > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(job)
        size += own
    if batch:
        yield batch
