"""Jobs run in the process of a test, for tests that are not about workers: a worker takes seconds to import torch."""

from muonlab.jobs import environment, store
from muonlab.jobs.pool import Event
from muonlab.jobs.worker import import_string


class InlinePool:
    """`muonlab.jobs.pool.Pool` without processes."""

    def __init__(self, folder, ready, num_workers, where, start=None):
        self._folder, self._ready, self._where = folder, ready, where

    def events(self):
        ended = set()
        while job := next((job for job in self._ready() if job.id not in ended), None):
            store.add(self._folder, job)
            yield Event("started", job.id, {"name": job.name, "cost": job.cost})
            place = {"folder": str(self._folder / job.id), "environment": environment.record(threads=1)}
            import_string(job.target)(config=job.config, **place, **self._where, report=lambda event: None)
            ended.add(job.id)
            yield Event("finished", job.id)
