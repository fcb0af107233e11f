"""The rules of customer master data: pure functions on frozen values, no database, no network, no clock.

The path of a record, each step its own module:

* `sources.read_row(source, row, received_time) -> RawRecord` maps a source's columns to standard fields.
* `standardize.standardize(raw, source) -> StandardRecord` never raises on any text; `record.is_rejected` says
  that a problem is grave enough to set the row apart, `problems.describe(reason)` says it in words.
* `blocking.blocking_keys(record) -> tuple[str, ...]`: plain keys, to be blind-indexed by the caller; two
  records that share none are never compared.
* `match.compare(a, b, model) -> MatchScore` with its waterfall; `model.default_model()` is the shipped model.
* `match.decide(record, candidates, model, rejected=frozenset()) -> Assignment` for one write; a batch is resolved by
  `services.profiles.resolution.people.resolve`, in columns, by the same levels, rules and weights.
* `golden.build_golden(records, overrides=()) -> GoldenRecord` by survivorship, with lineage per field.
* `dictionary.DEFAULT_FIELDS`, `dictionary.visible_fields(...)`: the data dictionary that drives the above.
* `plain.record_to_plain`, `plain.record_from_plain`: StandardRecord to and from JSON-ready dicts for sealing.
"""
