"""Rules as versioned data: each change makes a revision, and a revision is used after it was tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Generic, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.records import etag_of, unchanged_since
from services.profiles.errors import RuleExists, RuleNotFound, RuleNotTried
from services.profiles.store import Shelf
from services.profiles.values import StoredRule

M = TypeVar("M", bound=Message)
OUTPUT = ("name", "revision", "active_revision", "trial", "create_time", "update_time", "etag")
HISTORY = "activations"  # of kinds that show it
ACTIVATIONS_KEPT = 100
TRIES = 8


class Rulebook(Generic[M]):
    """The rules of one kind, each stored as JSON of its message; `kind` has all fields of OUTPUT."""

    def __init__(self, collection: str, kind: type[M], shelf: Shelf[StoredRule]) -> None:
        """Keep rules of the resource names `collection/{id}` on a shelf."""
        self._collection = collection
        self._kind = kind
        self.shelf = shelf

    def plain(self, message: M) -> str:
        """Return what of a rule makes a revision, as JSON."""
        return content_of(message, [*OUTPUT, *({HISTORY} & set(message.DESCRIPTOR.fields_by_name))])

    def parsed(self, plain: str) -> M:
        """Return the message of a revision."""
        return json_format.Parse(plain, self._kind())

    def message(self, rule: StoredRule) -> M:
        """Return the message of a rule: its latest revision."""
        message = self.parsed(rule.latest)
        found = self._kind(name=f"{self._collection}/{rule.id}", revision=rule.revision, etag=etag_of(rule.version))
        found.active_revision = rule.active_revision  # type: ignore[attr-defined]
        if rule.trial:
            json_format.Parse(rule.trial, found.trial)  # type: ignore[attr-defined]
        if rule.create_time and rule.update_time:
            found.create_time.FromDatetime(rule.create_time)  # type: ignore[attr-defined]
            found.update_time.FromDatetime(rule.update_time)  # type: ignore[attr-defined]
        message.MergeFrom(found)
        return message

    def at(self, rule: StoredRule, revision: int) -> M:
        """Return the message of a rule with the content of a revision that was in use once.

        Raises:
            RuleNotFound: the revision never was, or so long ago that it is not kept.
        """
        contents = {int(str(item[0])): str(item[3]) for item in rule.activations if item[3]}
        if revision not in contents:
            name = f"{self._collection}/{rule.id}"
            raise RuleNotFound("this revision was never in use", metadata={"name": name, "revision": str(revision)})
        return self.message(replace(rule, latest=contents[revision], revision=revision))

    def get(self, name: str) -> StoredRule:
        """Return the rule of a resource name.

        Raises:
            RuleNotFound: there is none.
        """
        found = self.shelf.get(name.rpartition("/")[2])
        if found is None:
            raise RuleNotFound("there is no such rule", metadata={"name": name})
        return found

    def create(self, rule_id: str, message: M) -> StoredRule:
        """Make a rule that is not in use yet.

        Raises:
            RuleExists: the id is taken.
        """
        try:
            return self.shelf.insert(StoredRule(rule_id, self.plain(message), 1))
        except AlreadyExists as error:
            name = f"{self._collection}/{rule_id}"
            raise RuleExists("a rule with this id exists already", metadata={"name": name}) from error

    def change(self, rule: StoredRule, message: M, etag: str, name: str) -> StoredRule:
        """Make a new revision if the content differs; the one in use stays in use.

        Raises:
            EtagMismatch: it was changed meanwhile.
        """
        with unchanged_since(etag, rule.version, name):
            plain = self.plain(message)
            if plain == rule.latest:
                return rule
            return self.shelf.replace(replace(rule, latest=plain, revision=rule.revision + 1))

    def activate(self, name: str, wanted: int, by: str) -> StoredRule:
        """Use the latest revision, if it was tried, or none when `wanted` is 0.

        Raises:
            RuleNotFound: there is no such rule.
            RuleNotTried: it is another revision, or was not tried.
            EtagMismatch: it was changed meanwhile.
        """
        rule = self.get(name)
        tried: int = self.message(rule).trial.revision  # type: ignore[attr-defined]
        if wanted and (wanted != rule.revision or tried != wanted):
            raise RuleNotTried(
                "only the latest revision is used, once it was tried on what is stored",
                metadata={"name": name, "revision": str(wanted)},
            )
        if wanted == rule.active_revision:
            return rule
        active = rule.latest if wanted else ""
        entry = [wanted, datetime.now(UTC).isoformat(), by, active]
        history = [*rule.activations, entry][-ACTIVATIONS_KEPT:]
        with unchanged_since("", rule.version, name):
            return self.shelf.replace(replace(rule, active=active, active_revision=wanted, activations=history))

    def keep_trial(self, rule_id: str, revision: int, trial: Message) -> None:
        """Keep what a revision was found to do, unless the rule was changed meanwhile.

        Raises:
            RuleNotFound: it is gone.
        """
        for _ in range(TRIES):
            stored = self.get(rule_id)
            if stored.revision != revision:
                return
            try:
                self.shelf.replace(replace(stored, trial=json_format.MessageToJson(trial, indent=None)))
            except Conflict:
                continue
            return


def content_of(message: Message, output: Sequence[str]) -> str:
    """Return a message without its output fields, as JSON."""
    kept = type(message)()
    kept.CopyFrom(message)
    for name in output:
        kept.ClearField(name)
    return json_format.MessageToJson(kept, preserving_proto_field_name=True, indent=None, ensure_ascii=False)
