"""The nouns of a study's folder: a job, what asked for it, and what its own folder shows."""

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from muonlab.jobs.files import Place

Status = Literal["done", "failed", "unfinished", "waiting", "unreadable"]


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys, no spaces and no NaN: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def identity(config: Mapping[str, Any]) -> str:
    """Return the sixteen hexadecimal digits that name a job: equal configs, equal ids."""
    return hashlib.sha256(canonical_json(dict(config)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Job:
    """A piece of work that one worker does.

    Attributes:
        id: sixteen hexadecimal digits, `identity` of the config; the name of its folder.
        name: for people, such as "cnn on digits: muon, final".
        target: "package.module:function" that a worker calls; it writes result.json, a JSON object, at its end.
        config: plain JSON, all that decides the result; results_version and study are in it.
        cost: estimated seconds of one core. Only the ratio to the cost of other jobs matters.
        case: what it is about, such as a task and a loss: jobs are compared within a case.
        arm: what is compared, such as an optimizer.
        role: its part in the study, such as search, final or control.
    """

    id: str
    name: str
    target: str
    config: dict[str, Any]
    cost: float
    case: str = ""
    arm: str = ""
    role: str = ""


class JobFile(BaseModel):
    """config.json of a job: `Job` without its id, which is the name of the folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    target: str
    cost: float = Field(ge=0, allow_inf_nan=False)
    case: str = ""
    arm: str = ""
    role: str = ""
    config: dict[str, Any]


class Request(BaseModel):
    """What one command asked.

    Attributes:
        preset: preset that the settings start from.
        settings: settings given in addition to the preset, key -> list of values as text.
        config: from which, with the results that are there, the jobs follow.
        jobs: ids of the jobs that it has asked for so far, in the order in which they became known; empty in a folder
            of an earlier version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    preset: str
    settings: dict[str, list[str]]
    config: dict[str, Any]
    jobs: tuple[str, ...] = ()

    def command(self, study: str) -> str:
        """Return the words that ask for it."""
        # An inspection has no preset; it is a verb of its own, and what it reads are words without a key.
        verb = [study] if self.preset == "none" else ["run", study, f"preset={self.preset}"]
        if self.preset.endswith(".py"):  # a study of a user's own, which starts from its file
            verb = ["run", self.preset]
        texts = {key: ",".join(values) for key, values in self.settings.items() if key != "models"}
        # A text with spaces, such as the command of a program, is one word.
        settings = [f"{key}={shlex.quote(text) if ' ' in text else text}" for key, text in texts.items()]
        return " ".join(["muonlab", *verb, *self.settings.get("models", ()), *settings])


class StudyFile(BaseModel):
    """study.json: every request that the folder has had; the last one is the newest.

    The properties are those of the newest request.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    study: str
    requests: tuple[Request, ...] = Field(min_length=1)

    @property
    def newest(self) -> Request:
        """The last request."""
        return self.requests[-1]

    preset = property(lambda self: self.newest.preset)
    settings = property(lambda self: self.newest.settings)
    config = property(lambda self: self.newest.config)


@dataclass(frozen=True)
class JobRecord:
    """One job as its folder shows it.

    Attributes:
        name: for people; empty where config.json cannot be read, and then config, case, arm and role are, too.
        status: done (result.json is there), failed (reason says why), unfinished (begun), waiting (not begun),
            unreadable (reason says which file).
        environment: env.json, or an empty dict.
        requests: numbers of the requests that asked for it, from 1; empty where study.json does not say.
    """

    id: str
    name: str
    config: dict[str, Any]
    folder: Place
    status: Status
    reason: str | None
    result: dict[str, Any] | None
    environment: dict[str, Any]
    case: str = ""
    arm: str = ""
    role: str = ""
    requests: tuple[int, ...] = ()

    @property
    def seconds(self) -> float | None:
        """Seconds of a worker, all sessions together; None where no clock was kept."""
        try:
            return float(sum(session["seconds"] for session in self.environment["sessions"]))
        except (KeyError, TypeError):
            return None

    def as_json(self) -> dict[str, Any]:
        """Return the job as plain JSON; docs/files.md states the keys."""
        keys = ("id", "name", "case", "arm", "role", "requests", "status", "reason", "config", "result")
        return {key: getattr(self, key) for key in keys} | {
            "members": (self.result or {}).get("members", []),
            "seconds": self.seconds,
            "seconds_per_member_step": self.environment.get("seconds_per_member_step"),
        }


def results_version(records: Iterable[JobRecord], current: int) -> int:
    """Return the results version that a folder is read at: the newest of its jobs, or `current` if it has none.

    A job's id contains the version, so the jobs of an older muonlab are found only under the version they have.
    """
    found = [record.config.get("results_version") for record in records]
    return max((version for version in found if isinstance(version, int)), default=current)
