"""Match models as versioned data: learnt, compared with the one in use, activated by a second person, undone.

What is in use is one small value; all processes read it again after FRESH_SECONDS, so that single writes, imports and
the full pass decide by the same model moments after it was switched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from services.chassis.errors import AlreadyExists, EtagMismatch
from services.chassis.records import unchanged_since
from services.profiles.domain.model import MatchModel, among, completed, default_model, model_from_json
from services.profiles.errors import MatchModelNotFound, MatchModelNotInUse, MatchModelOutdated, SecondPersonNeeded
from services.profiles.remembered import Remembered
from services.profiles.store import Store
from services.profiles.training.values import IN_USE, ModelUse, StoredModel

ACTIVATE, ROLL_BACK = "activate", "roll_back"
SWITCHES_KEPT = 200
COUNTED_SECONDS = 5.0  # a base that grows counts so late


class Models:
    """The models of one store; called, it returns the one in use."""

    def __init__(self, store: Store) -> None:
        """Read at the first question, not now."""
        self._store = store
        self._known = default_model()
        self._people = Remembered(store.estimate_profiles, COUNTED_SECONDS)
        self._in_use = Remembered(self._read)

    def __call__(self) -> MatchModel:
        """Return the model in use for as many people as there are, as it was at most FRESH_SECONDS ago.

        Raises:
            MatchModelNotFound: what should be in use is gone; nothing is decided by another.
        """
        return self._in_use()

    def now(self) -> MatchModel:
        """Return the model in use, read now."""
        self._in_use.forget()
        return self._in_use()

    def base_of(self, stored: StoredModel) -> MatchModel | None:
        """Return the model that one was compared with; None when it is no more."""
        try:
            return self._model(stored.base)
        except MatchModelNotFound:
            return None

    def _read(self) -> MatchModel:
        version = self.version_of(self.use())
        if version != self._known.version:
            self._known = self._model(version)
        self._known = among(self._known, self._people())
        return self._known

    def _model(self, version: str) -> MatchModel:
        """Return a model; one that does not tell among how many it was learnt is taken as the shipped one is."""
        shipped = default_model()
        if version == shipped.version:
            return shipped
        found = completed(model_from_json(self.get(version).content))
        return found if found.people else replace(found, people=shipped.people)

    @staticmethod
    def version_of(use: ModelUse) -> str:
        """Return the version that is in use."""
        return use.models[-1] if use.models else default_model().version

    def use(self) -> ModelUse:
        """Return what is in use now, not what was remembered."""
        return self._store.model_use.get(IN_USE) or ModelUse()

    def get(self, version: str) -> StoredModel:
        """Return a model that was learnt.

        Raises:
            MatchModelNotFound: there is none of this version.
        """
        found = self._store.match_models.get(version)
        if found is None:
            raise MatchModelNotFound("there is no such match model", metadata={"name": f"matchModels/{version}"})
        return found

    def activate(self, version: str, by: str, reason: str) -> ModelUse:
        """Use a model that another person had learnt, if it was compared with the one in use.

        Raises:
            MatchModelNotFound: there is none of this version.
            SecondPersonNeeded: the person had it learnt.
            MatchModelOutdated: another model is in use than it was compared with.
            EtagMismatch: another was activated meanwhile.
        """
        found, use, metadata = self.get(version), self.use(), {"name": f"matchModels/{version}"}
        if self.version_of(use) == version:
            return use
        if found.author == by:
            raise SecondPersonNeeded("another person must agree", metadata=metadata)
        if found.base != self.version_of(use):
            metadata["in_use"] = f"matchModels/{self.version_of(use)}"
            raise MatchModelOutdated("it was compared with a model that is not in use; train anew", metadata=metadata)
        return self._switch(use, [*use.models, version], [ACTIVATE, version, by, reason])

    def roll_back(self, version: str, by: str, reason: str) -> ModelUse:
        """Take the model out of use; the one before it is used again, at last the shipped one.

        Raises:
            MatchModelNotInUse: another one is in use.
            EtagMismatch: another was activated meanwhile.
        """
        use = self.use()
        if not use.models or use.models[-1] != version:
            metadata = {"name": f"matchModels/{version}", "in_use": f"matchModels/{self.version_of(use)}"}
            raise MatchModelNotInUse("only the model in use is undone, and not the shipped one", metadata=metadata)
        return self._switch(use, use.models[:-1], [ROLL_BACK, version, by, reason])

    def _switch(self, use: ModelUse, models: Sequence[str], switch: Sequence[str]) -> ModelUse:
        kind, version, by, reason = switch
        entry = [kind, version, datetime.now(UTC).isoformat(), by, reason]
        following = replace(use, models=list(models), switches=[*use.switches, entry][-SWITCHES_KEPT:])
        try:
            with unchanged_since("", use.version, f"matchModels/{version}"):
                if use.version:
                    return self._store.model_use.replace(following)
                return self._store.model_use.insert(following)
        except AlreadyExists:
            raise EtagMismatch(f"matchModels/{version}") from None
        finally:
            self._in_use.forget()
