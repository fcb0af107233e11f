"""Who else holds a value: the tokens that records are counted by, and the rules that need the count."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set

from services.profiles.dictionary import Dictionary
from services.profiles.domain.blocking import IDENTIFIERS
from services.profiles.domain.cross_record import OWN, Index, Value
from services.profiles.domain.validation import Rule, texts_of
from services.profiles.domain.values import Problem, Severity, StandardRecord
from services.profiles.folding import Incoming, Working
from services.profiles.values import record_key
from services.profiles.vault import Vault

Held = dict[str, set[str]]  # the keys of the records that hold a value, by its token


def value_tokens(record: StandardRecord, indexes: Collection[Index], vault: Vault) -> list[str]:
    """Return the blind tokens of a record that rules count by, beside those that it is matched by."""
    values = [
        Value(field, source_id and record.source_id, text)
        for field, source_id in sorted(indexes)
        if source_id in ("", OWN, record.source_id) and needs_token((field, source_id))
        for text in texts_of(record, field)
    ]
    return [vault.value_token(value) for value in dict.fromkeys(values)]


def needs_token(index: Index) -> bool:
    """Tell whether an index has tokens of its own: identifiers among all records have some already."""
    field, source_id = index
    return not (field in IDENTIFIERS and not source_id)


class Neighbours:
    """Judges records by rules that look around, those in use or others."""

    def __init__(self, vault: Vault, rules: Sequence[Rule]) -> None:
        """Judge by these rules."""
        self._vault = vault
        self._rules = rules

    @classmethod
    def now(cls, vault: Vault, dictionary: Dictionary) -> Neighbours:
        """Judge by the rules in use."""
        return cls(vault, dictionary.cross_rules())

    def counted(self, records: Iterable[StandardRecord]) -> dict[str, int]:
        """Return the tokens whose holders must be known to judge these records, and how many of each suffice."""
        found: dict[str, int] = {}
        for record in records if self._rules else ():
            for rule in self._rules:
                for value, enough in rule.asks(record).items():
                    token = self._vault.value_token(value)
                    found[token] = max(enough, found.get(token, 0))
        return found

    def judge(
        self, record: StandardRecord, held: Mapping[str, Set[str]], former: StandardRecord | None = None
    ) -> tuple[Problem, ...]:
        """Return a problem for each rule that a record breaks, by who holds its values and its former version."""

        def holders(value: Value) -> Set[str]:
            return held.get(self._vault.value_token(value), frozenset())

        key = record_key(*record.key)
        return tuple(
            Problem(rule.field, rule.reason, rule.severity)
            for rule in self._rules
            if rule.is_broken_among(record, key, holders, former)
        )

    def judge_batch(
        self, waiting: Sequence[Incoming], loaded: Iterable[Working], held: Held
    ) -> tuple[list[Incoming], dict[str, tuple[Problem, ...]]]:
        """Return what of a batch may be taken in, warnings noted in its records, and the problems found by key.

        Each record is judged as if those before it were stored. What is stored already is not judged again, and what
        is older than that will not be taken in.
        """
        if not self._rules:
            return list(waiting), {}
        stored = {item.key: (item, working.records[item.key]) for working in loaded for item in working.profile.records}
        kept: list[Incoming] = []
        problems: dict[str, tuple[Problem, ...]] = {}
        for incoming in waiting:
            old, former = stored.get(incoming.key, (None, None))
            if old and old.content_hash == incoming.content_hash:
                found = self._noted(former)
            elif old and incoming.record.updated_time < old.updated_time:
                found = ()
            else:
                found = self.judge(incoming.record, held, former)
            problems[incoming.key] = found
            if any(item.severity is Severity.REJECT for item in found):
                continue
            kept.append(incoming.noting(found))
            for token in old.tokens if old else ():
                held.get(token, set()).discard(incoming.key)
            for token in incoming.all_tokens:
                if token in held:
                    held[token].add(incoming.key)
        return kept, {key: found for key, found in problems.items() if found}

    def _noted(self, record: StandardRecord | None) -> tuple[Problem, ...]:
        """Return what was noted of these rules when a record was taken in."""
        reasons = {rule.reason for rule in self._rules}
        return tuple(item for item in record.problems if item.reason in reasons) if record else ()
