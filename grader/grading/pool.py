"""Controllers side by side, one a core: hands out jobs, keeps results as they come, replaces a controller that dies."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

from grader.course import Chapter
from grader.grading.place import NoPlace, Place, claim
from grader.grading.result import Outcome, Verdict, from_json
from grader.grading.worker import Charge, Job, Report, Settings, failed
from grader.sandbox.twins import start

MAX_ATTEMPTS = 2
"""A submission during which a controller died twice is set aside for a human; the others go on."""
RENEW_AFTER = 1000
"""Submissions of one controller."""
JOB_LIMIT = 1800.0
"""Seconds of wall time after which a controller is taken for dead: no submission may take so long by itself."""


class PoolBroken(Exception):
    """No controller can be started; one sentence says why."""


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    place: Place
    job: Job | None = None
    since: float = 0.0
    ready: bool = False


@dataclass
class Pool:
    """Grades jobs on several controllers; `done` is called with each outcome as it arrives."""

    settings: Settings
    chapters: dict[str, Chapter]
    size: int
    renew_after: int = RENEW_AFTER
    environ: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    """For the controllers, taken once: nbgrader changes its own while they are graded in another thread."""
    _workers: list[_Worker] = field(default_factory=list)
    _queue: deque[Job] = field(default_factory=deque)
    _attempts: dict[int, int] = field(default_factory=dict)
    _fresh_deaths: int = 0

    def run(self, jobs: Sequence[Job], done: Callable[[Job, Outcome], None]) -> None:
        """Grade all jobs. Raises PoolBroken; on any exception the controllers are ended, what is done was reported."""
        try:
            self.grade(jobs, done)
        finally:
            self.close()

    def grade(self, jobs: Sequence[Job], done: Callable[[Job, Outcome], None]) -> None:
        """Grade all jobs and keep the controllers for the next ones. After PoolBroken only `close` is left."""
        self._attempts.clear()
        self._queue.extend(jobs)
        for worker in self._workers:
            if worker.ready:
                self._feed(worker)
        while len(self._workers) < min(self.size, len(jobs)):
            self._workers.append(self._start(_claim()))
        while self._queue or any(worker.job for worker in self._workers):
            self._step(done)

    def _step(self, done: Callable[[Job, Outcome], None]) -> None:
        ready = set(wait([worker.connection for worker in self._workers], timeout=1.0))
        for index, worker in enumerate(self._workers):
            if worker.connection in ready:
                self._listen(index, worker, done)
            elif worker.job is not None and time.monotonic() - worker.since > JOB_LIMIT:
                self._replace(index, worker, done, "it took longer than half an hour")

    def _listen(self, index: int, worker: _Worker, done: Callable[[Job, Outcome], None]) -> None:
        try:
            report: Report = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(index, worker, done, "the controller ended unexpectedly")
            return
        if report.problem:
            raise PoolBroken(report.problem)
        if report.outcome is None:
            worker.ready, self._fresh_deaths = True, 0
        else:
            self._take(worker, from_json(report.outcome), done)
        if report.is_last:
            self._replace(index, worker, done, "the controller was renewed")
        else:
            self._feed(worker)

    def _take(self, worker: _Worker, outcome: Outcome, done: Callable[[Job, Outcome], None]) -> None:
        assert worker.job is not None
        job, worker.job = worker.job, None
        if outcome.is_infra and self._try_again(job):
            self._queue.append(job)
        else:
            done(job, outcome)

    def _feed(self, worker: _Worker) -> None:
        if self._queue and worker.job is None:
            try:
                worker.connection.send(self._queue[0])
            except OSError:  # it ended while it had nothing to do; its closed pipe is noticed next
                return
            worker.job, worker.since = self._queue.popleft(), time.monotonic()

    def _replace(self, index: int, worker: _Worker, done: Callable[[Job, Outcome], None], why: str) -> None:
        worker.process.kill()
        worker.process.wait()
        worker.connection.close()
        if not worker.ready:
            self._fresh_deaths += 1
            if self._fresh_deaths > 2 * self.size:
                raise PoolBroken("controllers end before they can begin; run with --jobs 1 to see why")
        if worker.job is not None:
            if self._try_again(worker.job):
                self._queue.append(worker.job)
            else:
                chapter = self.chapters[worker.job.submission.chapter]
                done(worker.job, failed(worker.job, chapter, Verdict.INFRA, f"not graded: {why}", self.settings))
        self._workers[index] = self._start(worker.place)

    def _try_again(self, job: Job) -> bool:
        self._attempts[job.number] = self._attempts.get(job.number, 0) + 1
        return self._attempts[job.number] < MAX_ATTEMPTS

    def _start(self, place: Place) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        with theirs:
            process = start("grader.grading.worker:work", theirs, place.descriptors)
        ours.send(Charge(self.settings, place.slot, self.environ, self.renew_after))
        return _Worker(process, ours, place)

    def close(self) -> None:
        """End all controllers."""
        for worker in self._workers:
            worker.connection.close()  # a controller whose pipe closes ends itself and its warm process
        for worker in self._workers:
            try:
                worker.process.wait(0.2 if worker.job else 2.0)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.place.close()
        self._workers.clear()
        self._queue.clear()


def _claim() -> Place:
    try:
        return claim()
    except NoPlace as error:
        raise PoolBroken(str(error)) from None
