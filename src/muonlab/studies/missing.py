"""What a study of jobs lacks, said before all else in its report."""

from collections.abc import Sequence

from muonlab.runs.findings import Text
from muonlab.runs.jobs import JobRecord

MOST_FAILURES = 5  # that are named one by one


def missing(records: Sequence[JobRecord], expected: int) -> list[Text]:
    """Return how far a study is, and which of its jobs failed and why.

    Args:
        records: of the study's jobs.
        expected: number of jobs that are known by now.
    """
    found = []
    done = sum(record.status == "done" for record in records)
    if done < expected:
        found.append(
            Text(
                f"This study is not finished: {done} of the {expected} jobs known so far are done; more may "
                "follow from their results. What follows speaks of those.",
                "warning",
            )
        )
    lost = [record for record in records if record.status in ("failed", "unreadable")]
    for record in lost[:MOST_FAILURES]:
        what = "failed" if record.status == "failed" else "cannot be read"
        found.append(Text(f"{record.name or record.id} {what}: {record.reason}.", "warning"))
    if len(lost) > MOST_FAILURES:
        found.append(Text(f"{len(lost) - MOST_FAILURES} more jobs failed: see “Every job”.", "warning"))
    return found
