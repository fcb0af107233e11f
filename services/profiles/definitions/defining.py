"""The one way a field's definition changes: history first, then compare-and-set; and the way back."""

from __future__ import annotations

from dataclasses import replace

from services.chassis.errors import AlreadyExists, Conflict
from services.profiles.definitions.proposals import (
    DELETE,
    FieldChange,
    FieldRevision,
    contents,
    revision_id,
    revision_of,
    survivorship_of,
    with_content,
)
from services.profiles.dictionary import BUILT_IN, Dictionary
from services.profiles.errors import FieldBuiltIn, FieldRevisionNotFound
from services.profiles.store import Store
from services.profiles.values import Field


class Definitions:
    """Field definitions with their revisions."""

    def __init__(self, store: Store, dictionary: Dictionary) -> None:
        self._store = store
        self._dictionary = dictionary

    def stored(self, field_id: str) -> Field | None:
        """Return the definition as the store has it now, a deleted one too; None when there never was one."""
        return self._store.fields.get(field_id) or BUILT_IN.get(field_id)

    def living(self, field_id: str) -> Field | None:
        """Return the definition as the store has it now; None when there is none."""
        found = self.stored(field_id)
        return None if found is None or found.is_deleted else found

    def write(self, item: Field, author: str, reason: str = "", approver: str = "", change: str = "") -> Field:
        """Make the next revision of a definition that was read at `item.version`; a deleted one stays as its last word.

        Raises:
            Conflict: somebody else changed it.
        """
        was = self.stored(item.id)
        if was is not None and was.version != item.version:
            raise Conflict("it was changed meanwhile; read it again and repeat")
        if was is not None:
            self._store.field_revisions.add_missing([revision_of(was)])
        is_new_rule = survivorship_of(was) != survivorship_of(item)
        following = replace(
            item, revision=(was.revision if was else 0) + 1, rule_version=item.rule_version + is_new_rule,
            author=author, approver=approver, reason=reason, change=change,
        )  # fmt: skip
        try:
            made = self._store.fields.replace(following) if item.version else self._store.fields.insert(following)
        except AlreadyExists as error:
            raise Conflict("it was changed meanwhile; read it again and repeat") from error
        finally:
            self._dictionary.forget()
        return made

    def apply(self, change: FieldChange, approver: str) -> Field:
        """Make a change's revision, or return the one it made before a crash.

        Raises:
            Conflict: the definition is another than the change was made for.
        """
        was = self.stored(change.field)
        if was is not None and was.change == change.id:
            return was
        if (was.revision if was else 0) != change.base_revision:
            raise Conflict("the field was changed since")
        base = was or Field(change.field)
        item = replace(base, is_deleted=True) if change.kind == DELETE else with_content(base, change.after)
        return self.write(item, change.author, change.reason, approver, change.id)

    def roll_back(self, now: Field, revision: int, author: str, reason: str) -> Field:
        """Return to an earlier revision's content.

        Raises:
            FieldRevisionNotFound: there is none of this number before the one of now.
            FieldBuiltIn: the revision is one without the field.
        """
        found = self._store.field_revisions.get(revision_id(now.id, revision))
        if found is None or revision >= now.revision:
            metadata = {"name": f"fields/{now.id}", "revision": str(revision)}
            raise FieldRevisionNotFound("there is no such earlier revision", metadata=metadata)
        if found.is_deleted:
            return self.write(replace(now, is_deleted=True), author, reason)
        return self.write(with_content(now, contents(found)), author, reason)

    def revisions(self, field_id: str, after: str, limit: int) -> list[FieldRevision]:
        """Return revisions with a greater id, oldest first, that of now last."""
        found = self._store.field_revisions.page({"field": field_id}, after, limit)
        now = self.stored(field_id)
        if now is not None and len(found) < limit and revision_id(field_id, now.revision) > after:
            known = {item.revision for item in found}
            found += [] if now.revision in known else [revision_of(now)]
        return found

    def before(self, item: FieldRevision) -> FieldRevision | None:
        """Return the revision that it took the place of."""
        return self._store.field_revisions.get(revision_id(item.field, item.revision - 1)) if item.revision else None


def not_built_in(item: Field) -> Field:
    """Return a definition that may be removed.

    Raises:
        FieldBuiltIn: it comes with the product.
    """
    if item.built_in:
        raise FieldBuiltIn("a built-in field cannot be removed", metadata={"name": f"fields/{item.id}"})
    return item
