"""The job that learns a match model from the stored records and the verdicts of people; it keeps nothing of a person.

Records go, opened, through a pipe into a child process, as in the full pass. Killed anywhere, it begins anew: nothing
is written before the model is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from zlib import crc32

from google.protobuf import json_format
from google.protobuf.message import Message
from kehu.profiles.v1 import matching_pb2 as pb

from services.chassis.jobs import Handler, Job
from services.profiles.domain.model import model_to_json
from services.profiles.errors import MatchModelNotLearnt
from services.profiles.resolution.planning import learnt, page_of
from services.profiles.store import Store
from services.profiles.training.messages import effect_message, model_message
from services.profiles.training.models import Models
from services.profiles.training.values import StoredModel
from services.profiles.vault import Vault

TRAIN = "train-match-model"
PROFILES_PER_PAGE = 500
VERDICTS_PER_READ = 500
VERDICTS = {"confirmed": True, "rejected": False}  # what the state of a candidate says: one person or two
Learning = Callable[[Mapping[str, Any], Iterable[bytes]], dict[str, Any]]


class Learner:
    """Runs trainings."""

    def __init__(self, store: Store, vault: Vault, models: Models, learning: Learning = learnt) -> None:
        """Work with these tools; a child process learns if nothing else is given."""
        self._store = store
        self._vault = vault
        self._models = models
        self._learning = learning

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of this job."""
        return {TRAIN: self.run}

    def run(self, job: Job) -> Message:
        """Learn the model, unless it is there already.

        Raises:
            MatchModelNotLearnt: the records teach too little.
        """
        version = str(job.args["version"])
        stored = self._store.match_models.get(version) or self._learn(version, job)
        return model_message(stored, self._models.base_of(stored), in_use=False)

    def _learn(self, version: str, job: Job) -> StoredModel:
        progress = pb.TrainingProgress(match_model=f"matchModels/{version}")
        base = self._models.now()
        verdicts = list(self._verdicts())
        progress.verdicts_read = len(verdicts)
        bands = [float(str(job.args[name])) for name in ("merge", "review")]
        asked = {
            "model": model_to_json(base), "version": version, "bands": bands, "seed": crc32(version.encode()),
            "verdicts": verdicts, "people": self._store.estimate_profiles(),
        }  # fmt: skip
        told = self._learning(asked, self._pages(job, progress))
        if "refused" in told:
            metadata = {"cause": str(told["refused"]), "matches": str(told["matches"])}
            raise MatchModelNotLearnt("the stored records teach too little", metadata=metadata)
        progress.peak_kilobytes = told.get("kilobytes", 0)
        job.save(job.checkpoint, progress)
        effect = json_format.MessageToJson(effect_message(told), indent=None)
        made = StoredModel(version, told["model"], base.version, effect, job.owner.subject)
        self._store.match_models.add_missing([made])
        return self._models.get(version)

    def _verdicts(self) -> Iterator[tuple[list[list[Any]], bool]]:
        """Yield the waterfalls of the pairs that people judged, with what they said."""
        for state, is_one in VERDICTS.items():
            after = ""
            while found := self._store.pairs.page({"state": state}, after, VERDICTS_PER_READ):
                yield from (([list(step) for step in pair.steps], is_one) for pair in found)
                after = found[-1].id

    def _pages(self, job: Job, progress: pb.TrainingProgress) -> Iterator[bytes]:
        after, left = "", int(str(job.args["profile_limit"])) or None
        while batch := self._store.page_profiles(after, min(left or PROFILES_PER_PAGE, PROFILES_PER_PAGE), ()):
            yield page_of(self._vault, self._store, batch)
            after = batch[-1].profile_id
            progress.profiles_read += len(batch)
            progress.records_read += sum(len(item.records) for item in batch)
            job.save(job.checkpoint, progress)
            if left is not None:
                left -= len(batch)
                if left <= 0:
                    return
