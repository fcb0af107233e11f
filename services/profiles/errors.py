"""The errors of the profiles service; each reason is documented in proto/kehu/profiles/v1/error_reason.proto."""

from __future__ import annotations

from services.chassis.errors import AlreadyExists, Busy, Exhausted, Invalid, NotAllowed, NotFound


class SourceNotFound(NotFound):
    """No source has this name."""

    reason = "SOURCE_NOT_FOUND"


class SourceExists(AlreadyExists):
    """A source with this id is registered already."""

    reason = "SOURCE_EXISTS"


class MappingInvalid(Invalid):
    """The mapping names an unknown field, or a column twice."""

    reason = "MAPPING_INVALID"


class FileUnreadable(Invalid):
    """The file is not of a known format, or is damaged."""

    reason = "FILE_UNREADABLE"


class FilePacked(Invalid):
    """The file is an archive or compressed."""

    reason = "FILE_PACKED"


class HeaderInvalid(Invalid):
    """The header row is missing, or a column's header is empty or repeated."""

    reason = "HEADER_INVALID"


class FileTooLarge(Invalid):
    """The file is larger than an import takes."""

    reason = "FILE_TOO_LARGE"


class ProfileNotFound(NotFound):
    """No profile has this name, now or formerly."""

    reason = "PROFILE_NOT_FOUND"


class RejectNotFound(NotFound):
    """No set-apart row has this name."""

    reason = "REJECT_NOT_FOUND"


class RejectClosed(NotAllowed):
    """The set-apart row was replayed already."""

    reason = "REJECT_CLOSED"


class RevealsUsedUp(Exhausted):
    """Somebody revealed as many values today as they may."""

    reason = "REVEALS_USED_UP"


class ExportTooLarge(Invalid):
    """More than one file may hold."""

    reason = "EXPORT_TOO_LARGE"


class ExportNotFound(NotFound):
    """There is no such export, or not for this caller, or not any more."""

    reason = "EXPORT_NOT_FOUND"


class ExportWithdrawn(NotAllowed):
    """A person in the export was erased, or retention took something of theirs: its file is gone."""

    reason = "EXPORT_WITHDRAWN"


class RejectStillRefused(Invalid):
    """The row is refused again."""

    reason = "REJECT_STILL_REFUSED"


class CandidateNotFound(NotFound):
    """No match candidate has this name."""

    reason = "CANDIDATE_NOT_FOUND"


class CandidateDecided(NotAllowed):
    """The match candidate was decided already."""

    reason = "CANDIDATE_DECIDED"


class FieldNotFound(NotFound):
    """No field definition has this name."""

    reason = "FIELD_NOT_FOUND"


class FieldExists(AlreadyExists):
    """A field definition with this id exists already."""

    reason = "FIELD_EXISTS"


class FieldBuiltIn(NotAllowed):
    """A built-in field may not be removed."""

    reason = "FIELD_BUILT_IN"


class UnmergeImpossible(NotAllowed):
    """The source records named are not the profile's, or all it has."""

    reason = "UNMERGE_IMPOSSIBLE"


class ProfilesBusy(Busy):
    """Others kept changing the same profiles."""

    reason = "PROFILES_BUSY"


class IdentifierUnreadable(Invalid):
    """The identifier to look up cannot be read."""

    reason = "IDENTIFIER_UNREADABLE"


class OverrideNotFound(NotFound):
    """The profile has no override with this name."""

    reason = "OVERRIDE_NOT_FOUND"


class OverrideInvalid(Invalid):
    """The field cannot be overridden, or the value is none of it."""

    reason = "OVERRIDE_INVALID"


class HistoryNotKept(NotFound):
    """The profile was there, but what it was at that time is not kept."""

    reason = "HISTORY_NOT_KEPT"


class SnapshotIncomplete(Invalid):
    """A row of a snapshot has no readable record id."""

    reason = "SNAPSHOT_INCOMPLETE"


class SnapshotOverLimit(NotAllowed):
    """More records are missing from a snapshot than may be deleted."""

    reason = "SNAPSHOT_OVER_LIMIT"


class CandidateClaimed(NotAllowed):
    """Another steward works on the match candidate."""

    reason = "CANDIDATE_CLAIMED"


class SecondPersonNeeded(NotAllowed):
    """Who gave the first verdict, or proposed a change, cannot agree to it."""

    reason = "SECOND_PERSON_NEEDED"


class ReasonNeeded(Invalid):
    """A verdict on which much hangs says why."""

    reason = "REASON_NEEDED"


class BulkChanged(NotAllowed):
    """The number of match candidates that fit a rule is not the expected one."""

    reason = "BULK_CHANGED"


class RuleNotFound(NotFound):
    """No rule has this name."""

    reason = "RULE_NOT_FOUND"


class RuleExists(AlreadyExists):
    """A rule with this id exists already."""

    reason = "RULE_EXISTS"


class RuleInvalid(Invalid):
    """The rule names an unknown source or field, or asks for what cannot be."""

    reason = "RULE_INVALID"


class RuleNotTried(NotAllowed):
    """The revision is not the latest, or was not tried."""

    reason = "RULE_NOT_TRIED"


class PullTargetUnknown(NotFound):
    """The operator named no place of this name."""

    reason = "PULL_TARGET_UNKNOWN"


class PullFailed(NotAllowed):
    """The place to pull from cannot be listed or read."""

    reason = "PULL_FAILED"


class FieldChangeNeeded(NotAllowed):
    """The attribute is changed by a reviewed change only."""

    reason = "FIELD_CHANGE_NEEDED"


class FieldChangeNotFound(NotFound):
    """No change of the dictionary has this name."""

    reason = "FIELD_CHANGE_NOT_FOUND"


class FieldChangeDecided(NotAllowed):
    """The change was applied or rejected already."""

    reason = "FIELD_CHANGE_DECIDED"


class FieldChangeNotPreviewed(NotAllowed):
    """The effect of the change was not counted yet."""

    reason = "FIELD_CHANGE_NOT_PREVIEWED"


class FieldChangeOutdated(NotAllowed):
    """The field was changed since the change was proposed."""

    reason = "FIELD_CHANGE_OUTDATED"


class FieldChangeEmpty(Invalid):
    """The change changes nothing."""

    reason = "FIELD_CHANGE_EMPTY"


class FieldRevisionNotFound(NotFound):
    """The field has no such revision, or it is that of now."""

    reason = "FIELD_REVISION_NOT_FOUND"


class ResolutionOverLimit(NotAllowed):
    """The full pass would merge more profiles than it may."""

    reason = "RESOLUTION_OVER_LIMIT"


class RetentionChanged(NotAllowed):
    """The number of items that are due is not the expected one."""

    reason = "RETENTION_CHANGED"


class RetentionRefused(Invalid):
    """The run or hold asks for what cannot be together, or for a time that has passed."""

    reason = "RETENTION_REFUSED"


class ScoresMissing(NotAllowed):
    """Scores were never computed, so nobody's purchases are known."""

    reason = "SCORES_MISSING"


class HoldNotFound(NotFound):
    """No legal hold has this name."""

    reason = "HOLD_NOT_FOUND"


class ReceiptNotFound(NotFound):
    """No retention receipt has this name, or the item is not among its items."""

    reason = "RECEIPT_NOT_FOUND"


class QualityRuleNotFound(NotFound):
    """No quality rule has this name."""

    reason = "QUALITY_RULE_NOT_FOUND"


class QualityRuleExists(AlreadyExists):
    """A quality rule with this id exists already."""

    reason = "QUALITY_RULE_EXISTS"


class QualityRuleInvalid(Invalid):
    """The quality rule names what is not there or not measured."""

    reason = "QUALITY_RULE_INVALID"


class QualityReportNotFound(NotFound):
    """No figures of the day are in reach."""

    reason = "QUALITY_REPORT_NOT_FOUND"


class QualityIncidentNotFound(NotFound):
    """No quality incident has this name, in reach."""

    reason = "QUALITY_INCIDENT_NOT_FOUND"


class QualityIncidentClosed(NotAllowed):
    """A measurement verified the incident."""

    reason = "QUALITY_INCIDENT_CLOSED"


class ProfileHeld(NotAllowed):
    """Somebody holds the profile for a legal reason: it may not be erased."""

    reason = "PROFILE_HELD"


class MasterKeyInUse(NotAllowed):
    """Data keys are still wrapped by the master key."""

    reason = "MASTER_KEY_IN_USE"


class MasterKeyRefused(NotAllowed):
    """The keeper of the master keys refuses."""

    reason = "MASTER_KEY_REFUSED"


class RelationTypeExists(AlreadyExists):
    """A type of relationship with this id exists already."""

    reason = "RELATION_TYPE_EXISTS"


class RelationInvalid(Invalid):
    """The relationship cannot be one."""

    reason = "RELATION_INVALID"


class RelationshipExists(AlreadyExists):
    """The two have this relationship already."""

    reason = "RELATIONSHIP_EXISTS"


class RelationshipNotFound(NotFound):
    """No relationship has this name."""

    reason = "RELATIONSHIP_NOT_FOUND"


class MatchModelNotFound(NotFound):
    """No match model has this name."""

    reason = "MATCH_MODEL_NOT_FOUND"


class MatchModelOutdated(NotAllowed):
    """The model was compared with another than the one in use."""

    reason = "MATCH_MODEL_OUTDATED"


class MatchModelNotInUse(NotAllowed):
    """Another model is in use, or the shipped one."""

    reason = "MATCH_MODEL_NOT_IN_USE"


class MatchModelNotLearnt(NotAllowed):
    """The stored records teach too little."""

    reason = "MATCH_MODEL_NOT_LEARNT"
