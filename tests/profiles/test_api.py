"""What the profiles service answers, behind the real guard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2
from kehu.options.v1 import options_pb2
from kehu.profiles.v1 import events_pb2, profiles_pb2, profiles_pb2_grpc, resources_pb2

from services.chassis.access import Condition, Obligations
from services.profiles.dictionary import BUILT_IN
from services.profiles.values import Field
from tests.harness import Harness, bad_fields
from tests.profiles.people import Service, batch, csv_of, person, source_request, upload

Stub = profiles_pb2_grpc.ProfilesServiceStub
CREATED, UPDATED = profiles_pb2.RecordResult.OUTCOME_CREATED, profiles_pb2.RecordResult.OUTCOME_UPDATED
UNCHANGED, STALE = profiles_pb2.RecordResult.OUTCOME_UNCHANGED, profiles_pb2.RecordResult.OUTCOME_STALE
REJECTED = profiles_pb2.RecordResult.OUTCOME_REJECTED


@dataclass
class Api:
    service: Service
    harness: Harness

    def call(self, method: str, request: object, **caller: str) -> object:
        return getattr(self.harness.stub(Stub, **caller), method)(request, timeout=20)

    def upsert(self, source_id: str, *records: tuple[str, dict[str, str]]) -> list[profiles_pb2.RecordResult]:
        return list(self.call("BatchUpsertRecords", batch(source_id, *records)).results)

    def profile(self, name: str) -> resources_pb2.Profile:
        return self.call("GetProfile", profiles_pb2.GetProfileRequest(name=name))

    def changes(self) -> list[events_pb2.ProfileChanged]:
        return [f.message for f in self.service.store.facts if isinstance(f.message, events_pb2.ProfileChanged)]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    service = Service(tmp_path / "keys")
    with service.serving() as harness:
        found = Api(service, harness)
        for source_id in ("till", "shop"):
            found.call("CreateSource", source_request(source_id))
        yield found


def refusal(action: Callable[[], object]) -> tuple[grpc.StatusCode, str, str]:
    """Return code, reason and everything a caller sees of the error that an action meets."""
    with pytest.raises(grpc.RpcError) as caught:
        action()
    error = caught.value
    packed = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    status = status_pb2.Status.FromString(packed)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        detail.Unpack(info)
    return error.code(), info.reason, str(status) + error.details()


def similar(number: int) -> dict[str, str]:
    """A record of the same person as `person(number)` that must merge."""
    return {**person(number), "email": "", "address": ""}


def doubtful(number: int) -> dict[str, str]:
    """A record that may be the same person: surname and phone only."""
    return {"name": person(number)["name"][0] + "先生", "phone": person(number)["phone"]}


def test_records_of_one_person_become_one_profile_whatever_the_source(api: Api) -> None:
    first, other = api.upsert("till", ("1", person(1)), ("2", person(2)))
    (same,) = api.upsert("shop", ("a", similar(1)))

    assert (first.outcome, other.outcome, same.outcome) == (CREATED, CREATED, UPDATED)
    assert first.profile == same.profile != other.profile
    profile = api.profile(first.profile)
    assert (profile.display_name, profile.source_count, profile.version) == (person(1)["name"], 2, 2)
    assert profile.address.city_code == "330100"


def test_records_of_one_batch_match_among_themselves(api: Api) -> None:
    first, same = api.upsert("till", ("1", person(1)), ("2", similar(1)))

    assert first.profile == same.profile
    assert api.profile(first.profile).version == 1


def test_the_same_batch_again_changes_nothing_and_says_so(api: Api) -> None:
    api.upsert("till", ("1", person(1)))
    facts = len(api.service.store.facts)

    assert [item.outcome for item in api.upsert("till", ("1", person(1)))] == [UNCHANGED]
    assert len(api.service.store.facts) == facts


def test_a_repeated_request_id_gives_the_first_answer_and_never_hides_new_content(api: Api) -> None:
    request = batch("till", ("1", person(1)))
    request.request_id = "r1"
    first = api.call("BatchUpsertRecords", request)

    assert api.call("BatchUpsertRecords", request).results == first.results
    request.records[0].fields["email"] = "new@example.cn"
    assert api.call("BatchUpsertRecords", request).results[0].outcome == UPDATED


def test_an_older_version_never_overwrites_a_newer_one(api: Api) -> None:
    request = batch("till", ("1", person(1)))
    request.records[0].update_time.FromJsonString("2025-06-01T00:00:00Z")
    name = api.call("BatchUpsertRecords", request).results[0].profile
    request.records[0].fields["name"] = "赵旧名"
    request.records[0].update_time.FromJsonString("2024-06-01T00:00:00Z")

    assert api.call("BatchUpsertRecords", request).results[0].outcome == STALE
    assert api.profile(name).display_name == person(1)["name"]


def test_superseded_versions_are_kept(api: Api) -> None:
    api.upsert("till", ("1", person(1)))
    api.upsert("till", ("1", {**person(1), "email": "new@example.cn"}))
    api.upsert("till", ("1", {**person(1), "email": "newer@example.cn"}))

    assert [item.number for item in api.service.store.archived("till", "1")] == [1, 2]


def test_a_version_within_one_batch_is_kept_too(api: Api) -> None:
    first, second = api.upsert("till", ("1", person(1)), ("1", {**person(1), "email": "new@example.cn"}))

    assert (first.outcome, second.outcome) == (CREATED, UPDATED)
    assert len(api.service.store.archived("till", "1")) == 1


def test_a_bridging_record_merges_two_profiles_and_the_older_name_survives(api: Api) -> None:
    base = person(1)
    (old,) = api.upsert("till", ("1", {"name": base["name"], "phone": base["phone"], "birth_date": base["birth_date"]}))
    (young,) = api.upsert("till", ("2", {"name": base["name"], "email": base["email"], "address": base["address"]}))
    assert old.profile != young.profile
    (bridge,) = api.upsert("shop", ("a", base))

    assert bridge.profile == old.profile
    merged = api.profile(young.profile)
    assert (merged.name, list(merged.aliases), merged.source_count) == (old.profile, [young.profile], 3)
    facts = [fact.message for fact in api.service.store.facts]
    ended = [m for m in facts if isinstance(m, events_pb2.ProfileChanged) and m.deleted]
    assert [m.merged_into for m in ended] == [old.profile.removeprefix("profiles/")]
    assert [m.merged_profile_id for m in facts if isinstance(m, events_pb2.ProfilesMerged)] == [ended[0].profile_id]
    assert api.service.store.handing_over() == []


def test_facts_carry_no_identifier_in_the_clear_and_all_of_them_sealed(api: Api) -> None:
    (result,) = api.upsert("till", ("1", person(1)))
    change = api.changes()[-1]
    identity = events_pb2.ProfileIdentity.FromString(api.service.vault.events.open(change.sealed_identity))

    plain = str({name: value for name, value in change.ListFields() if name.name != "sealed_identity"})
    assert not any(value in plain for value in person(1).values())
    assert identity.display_name == person(1)["name"]
    assert list(identity.phones) == ["+86" + person(1)["phone"]]
    assert (change.profile_id, change.version) == (result.profile.removeprefix("profiles/"), 1)
    assert (change.city_code, change.birth_year) == ("330100", int(person(1)["birth_date"][:4]))


def test_nothing_stored_holds_an_identifier_in_the_clear(api: Api) -> None:
    (result,) = api.upsert("till", ("1", person(1)))
    (stored,) = api.service.store.profiles([result.profile.removeprefix("profiles/")]).values()
    sealed = stored.golden + b"".join(item.sealed for item in stored.records)

    for value in (person(1)["name"], person(1)["phone"], person(1)["email"]):
        assert value.encode() not in sealed
        assert value not in str(stored)


def test_a_bad_record_is_set_apart_with_its_reason_and_the_others_go_in(api: Api) -> None:
    bad, good = api.upsert("till", ("1", {**person(1), "phone": "1.38E+10"}), ("2", person(2)))

    assert (bad.outcome, good.outcome) == (REJECTED, CREATED)
    assert [(item.field, item.reason) for item in bad.reasons] == [("phone", "PHONE_DIGITS_LOST")]
    listed = api.call("ListRejects", profiles_pb2.ListRejectsRequest())
    assert [item.name for item in listed.rejects] == [bad.reject]
    assert "1.38" not in str(listed)


def test_a_corrected_reject_is_replayed_once(api: Api) -> None:
    bad, _ = api.upsert("till", ("1", {**person(1), "phone": "1.38E+10"}), ("2", person(2)))
    request = profiles_pb2.ReplayRejectRequest(name=bad.reject)

    code, reason, text = refusal(lambda: api.call("ReplayReject", request))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REJECT_STILL_REFUSED")
    assert "1.38" not in text
    request.corrections["phone"] = person(1)["phone"]
    assert api.call("ReplayReject", request).state == resources_pb2.Reject.STATE_REPLAYED
    assert refusal(lambda: api.call("ReplayReject", request))[1] == "REJECT_CLOSED"
    assert api.upsert("till", ("1", person(1)))[0].outcome == UNCHANGED


def test_a_profile_is_looked_up_by_phone_email_or_record_in_any_usual_form(api: Api) -> None:
    (result,) = api.upsert("till", ("1", person(1)))
    phone = person(1)["phone"]
    requests = [
        profiles_pb2.LookupProfilesRequest(phone=f"+86 {phone[:3]}-{phone[3:7]}-{phone[7:]}"),
        profiles_pb2.LookupProfilesRequest(email=person(1)["email"].upper()),
        profiles_pb2.LookupProfilesRequest(
            source_record=resources_pb2.SourceRecordName(source="sources/till", source_record_id="1")
        ),
    ]

    for request in requests:
        assert [item.name for item in api.call("LookupProfiles", request).profiles] == [result.profile]
    unknown = profiles_pb2.LookupProfilesRequest(phone=person(9)["phone"])
    assert not api.call("LookupProfiles", unknown).profiles
    assert refusal(lambda: api.call("LookupProfiles", profiles_pb2.LookupProfilesRequest(phone="x")))[1] == (
        "IDENTIFIER_UNREADABLE"
    )


def test_looking_up_needs_a_purpose_and_the_right_to_search(api: Api) -> None:
    request = profiles_pb2.LookupProfilesRequest(phone=person(1)["phone"])

    assert refusal(lambda: api.call("LookupProfiles", request, purpose=""))[1] == "PURPOSE_REQUIRED"
    api.harness.policy.obligations = Obligations(shown=frozenset({"personal/contact"}))
    assert refusal(lambda: api.call("LookupProfiles", request))[0] == grpc.StatusCode.PERMISSION_DENIED
    api.harness.policy.obligations = Obligations(searchable=frozenset({"personal/contact"}))
    api.call("LookupProfiles", request)


def test_fields_are_shown_masked_or_hidden_by_the_callers_rights(api: Api) -> None:
    (result,) = api.upsert("till", ("1", person(1)))
    api.harness.policy.obligations = Obligations(
        shown=frozenset({"personal/name"}), masked=frozenset({"personal/contact", "personal/birth"})
    )
    profile = api.profile(result.profile)

    phone = person(1)["phone"]
    assert profile.display_name == person(1)["name"]
    assert list(profile.phones) == [f"{phone[:3]}****{phone[-4:]}"]
    assert profile.birth_date.endswith("岁")
    assert (profile.address.text, profile.address.city_code) == ("", "")
    lineage = api.call("GetProfileLineage", profiles_pb2.GetProfileLineageRequest(name=result.profile))
    values = {item.field: item.value for item in lineage.fields}
    assert values["name"].name == person(1)["name"]
    assert values["phone"].phone == f"{phone[:3]}****{phone[-4:]}"
    assert values["address"].address == ""


def test_row_filters_hold_for_reads_lists_and_look_ups(api: Api) -> None:
    api.call("CreateSource", source_request("desk", owner_department="service"))
    (mine,), (foreign,) = api.upsert("till", ("1", person(1))), api.upsert("desk", ("1", person(2)))
    api.harness.policy.obligations = Obligations(
        everything=True, row_filter=(Condition("owner_department", ("sales",)),)
    )

    assert [item.name for item in api.call("ListProfiles", profiles_pb2.ListProfilesRequest()).profiles] == [
        mine.profile
    ]
    assert refusal(lambda: api.profile(foreign.profile))[1] == "PROFILE_NOT_FOUND"
    lookup = profiles_pb2.LookupProfilesRequest(phone=person(2)["phone"])
    assert not api.call("LookupProfiles", lookup).profiles
    api.harness.policy.obligations = Obligations(everything=True, row_filter=(Condition("color", ("red",)),))
    refused = refusal(lambda: api.call("ListProfiles", profiles_pb2.ListProfilesRequest()))
    assert refused[:2] == (grpc.StatusCode.PERMISSION_DENIED, "ROWS_NOT_NARROWED")


def test_lists_page_over_every_profile_once(api: Api) -> None:
    api.upsert("till", *[(str(i), person(i)) for i in range(30)])
    seen, token = [], ""
    while True:
        page = api.call("ListProfiles", profiles_pb2.ListProfilesRequest(page_size=7, page_token=token))
        seen += [item.name for item in page.profiles]
        token = page.next_page_token
        if not token:
            break

    assert len(seen) == len(set(seen)) == 30
    other = profiles_pb2.ListProfilesRequest(page_size=7, page_token="e30")
    assert refusal(lambda: api.call("ListProfiles", other))[1] == "PAGE_TOKEN_INVALID"


def test_a_custom_field_is_hidden_until_it_is_classified(api: Api) -> None:
    unknown = {**person(1), "hobby": "chess"}
    assert refusal(lambda: api.upsert("till", ("1", unknown)))[1] == "MAPPING_INVALID"
    api.call("CreateFieldDefinition", profiles_pb2.CreateFieldDefinitionRequest(field_id="hobby", field_definition={}))
    (result,) = api.upsert("till", ("1", unknown))

    assert dict(api.profile(result.profile).attributes) == {}
    stored = api.service.store.fields.get("hobby")
    assert stored is not None
    api.service.store.fields.replace(
        replace(stored, classification=options_pb2.CLASSIFICATION_PERSONAL, group="behaviour")
    )
    api.service.dictionary.forget()
    assert dict(api.profile(result.profile).attributes) == {"hobby": "chess"}
    api.harness.policy.obligations = Obligations()
    assert dict(api.profile(result.profile).attributes) == {}
    api.harness.policy.obligations = Obligations(masked=frozenset({"personal/behaviour"}))
    assert dict(api.profile(result.profile).attributes) == {"hobby": "***"}


def test_the_dictionary_lists_built_in_fields_which_stay(api: Api) -> None:
    listed = api.call("ListFieldDefinitions", profiles_pb2.ListFieldDefinitionsRequest(page_size=1000))
    names = [item.name for item in listed.field_definitions]

    assert {"fields/name", "fields/phone", "fields/resident_id"} <= set(names)
    assert names == sorted(names)
    delete = profiles_pb2.DeleteFieldDefinitionRequest(name="fields/phone")
    assert refusal(lambda: api.call("DeleteFieldDefinition", delete))[1] == "FIELD_BUILT_IN"
    declassify = profiles_pb2.UpdateFieldDefinitionRequest(
        field_definition=resources_pb2.FieldDefinition(name="fields/phone"),
        update_mask=FieldMask(paths=["classification"]),
    )
    assert refusal(lambda: api.call("UpdateFieldDefinition", declassify))[1] == "FIELD_NOT_CHANGEABLE"


def candidates(api: Api, state: int = 0) -> list[resources_pb2.MatchCandidate]:
    request = profiles_pb2.ListMatchCandidatesRequest(state=state)
    return list(api.call("ListMatchCandidates", request).match_candidates)


def test_a_doubtful_pair_is_asked_about_and_merged_when_confirmed(api: Api) -> None:
    (first,), (second,) = api.upsert("till", ("1", person(1))), api.upsert("shop", ("a", doubtful(1)))
    (pair,) = candidates(api)

    assert {pair.profile, pair.other_profile} == {first.profile, second.profile}
    assert {"prior", "name", "phone"} <= {step.comparison for step in pair.steps}
    both = api.call("GetMatchCandidate", profiles_pb2.GetMatchCandidateRequest(name=pair.name))
    assert {item.name for item in both.profiles} == {first.profile, second.profile}
    confirmed = api.call("ConfirmMatchCandidate", profiles_pb2.ConfirmMatchCandidateRequest(name=pair.name))
    assert confirmed.state == resources_pb2.MatchCandidate.STATE_CONFIRMED
    assert confirmed.decided_by == "user:test"
    assert api.profile(second.profile).name == first.profile
    again = profiles_pb2.RejectMatchCandidateRequest(name=pair.name)
    assert refusal(lambda: api.call("RejectMatchCandidate", again))[1] == "CANDIDATE_DECIDED"


def test_a_rejected_pair_is_never_merged_nor_asked_about_again(api: Api) -> None:
    (first,), (second,) = api.upsert("till", ("1", person(1))), api.upsert("shop", ("a", doubtful(1)))
    (pair,) = candidates(api)
    api.call("RejectMatchCandidate", profiles_pb2.RejectMatchCandidateRequest(name=pair.name))

    (changed,) = api.upsert("shop", ("a", similar(1)))
    assert changed.profile == second.profile
    assert api.profile(first.profile).name != api.profile(second.profile).name
    assert candidates(api) == []


def test_a_pair_that_became_one_by_other_means_leaves_the_queue(api: Api) -> None:
    api.upsert("till", ("1", person(1)))
    api.upsert("shop", ("a", doubtful(1)))
    assert len(candidates(api)) == 1
    api.upsert("shop", ("a", person(1)))

    assert candidates(api) == []
    assert len(candidates(api, resources_pb2.MatchCandidate.STATE_OBSOLETE)) == 1


def test_unmerge_splits_records_out_and_they_stay_apart(api: Api) -> None:
    (first,), _ = api.upsert("till", ("1", person(1))), api.upsert("shop", ("a", similar(1)))
    request = profiles_pb2.UnmergeProfileRequest(name=first.profile, reason="two persons")
    request.source_records.add(source="sources/shop", source_record_id="a")
    split = api.call("UnmergeProfile", request)

    assert (split.profile.source_count, split.new_profile.source_count) == (1, 1)
    assert split.new_profile.display_name == person(1)["name"]
    assert (
        api.upsert("shop", ("a", {**similar(1), "name": person(1)["name"] + " "}))[0].profile == split.new_profile.name
    )
    assert refusal(lambda: api.call("UnmergeProfile", request))[1] == "UNMERGE_IMPOSSIBLE"
    history = api.call("GetProfileHistory", profiles_pb2.GetProfileHistoryRequest(name=first.profile))
    kinds = [resources_pb2.ProfileRevision.Kind.Name(item.kind) for item in history.revisions]
    assert kinds == ["KIND_UNMERGED", "KIND_UPDATED", "KIND_CREATED"]


def test_lineage_names_record_rule_and_what_was_beaten(api: Api) -> None:
    (first,) = api.upsert("till", ("1", person(1)))
    api.upsert("shop", ("a", {**similar(1), "email": "other@example.cn"}))
    lineage = api.call("GetProfileLineage", profiles_pb2.GetProfileLineageRequest(name=first.profile))
    emails = [item for item in lineage.fields if item.field == "email"]

    assert {item.source for item in emails} == {"sources/till", "sources/shop"}
    assert all(item.rule and item.HasField("time") for item in lineage.fields)


def test_services_resolve_records_and_contacts_and_list_states(api: Api) -> None:
    first, second = api.upsert("till", ("1", person(1)), ("2", {**person(2), "email": ""}))
    ids = [item.profile.removeprefix("profiles/") for item in (second, first)]
    resolve = profiles_pb2.ResolveSourceRecordsRequest(source_id="till", source_record_ids=["1", "2", "9"])
    contacts = profiles_pb2.BatchGetContactsRequest(profile_ids=[*ids, "unknown"], channel="email")

    found = api.call("ResolveSourceRecords", resolve, caller="", peer="analytics")
    assert dict(found.profile_ids) == {"1": ids[1], "2": ids[0]}
    reply = api.call("BatchGetContacts", contacts, caller="", peer="marketing")
    assert [(item.profile_id, item.address) for item in reply.contacts] == [(ids[1], person(1)["email"])]
    states = api.call("ListProfileStates", profiles_pb2.ListProfileStatesRequest(), caller="", peer="search")
    assert sorted(item.profile_id for item in states.states) == sorted(ids)
    for peer in ("tickets", "marketing"):
        code, _, _ = refusal(lambda peer=peer: api.call("ResolveSourceRecords", resolve, caller="", peer=peer))
        assert code == grpc.StatusCode.PERMISSION_DENIED


def test_a_mapping_to_an_unknown_or_derived_field_is_refused(api: Api) -> None:
    for column, name in [("x", "nonsense"), ("x", "province_code"), ("手机", "email")]:
        request = source_request("other")
        request.source.mapping.add(column=column, field=name)
        assert refusal(lambda request=request: api.call("CreateSource", request))[1] == "MAPPING_INVALID"


def test_a_source_is_changed_only_with_its_current_tag(api: Api) -> None:
    source = api.call("GetSource", profiles_pb2.GetSourceRequest(name="sources/till"))
    source.trust_rank = 5
    update = profiles_pb2.UpdateSourceRequest(source=source, update_mask=FieldMask(paths=["trust_rank"]))

    assert api.call("UpdateSource", update).trust_rank == 5
    assert refusal(lambda: api.call("UpdateSource", update))[1] == "ETAG_MISMATCH"
    assert refusal(lambda: api.call("CreateSource", source_request("till")))[1] == "SOURCE_EXISTS"


def change_of(name: str, paths: list[str], **fields: object) -> profiles_pb2.UpdateSourceRequest:
    """Return the request that changes these fields of a source."""
    source = resources_pb2.Source(name=f"sources/{name}", **fields)
    return profiles_pb2.UpdateSourceRequest(source=source, update_mask=FieldMask(paths=paths))


def test_a_part_of_a_source_is_changed_and_the_rest_stays(api: Api) -> None:
    before = api.call("GetSource", profiles_pb2.GetSourceRequest(name="sources/till"))
    changed = api.call("UpdateSource", change_of("till", ["trust_rank"], trust_rank=7))

    assert changed.trust_rank == 7
    assert (changed.owner_department, changed.mapping) == (before.owner_department, before.mapping)
    assert api.call("UpdateSource", change_of("till", [], date_order="dmy")).date_order == "dmy"


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"trust_rank": 1001}, "trust_rank"),
        ({"owner_department": ""}, "owner_department"),
        ({"date_order": "yyy"}, "date_order"),
        ({"utc_offset_minutes": 841}, "utc_offset_minutes"),
        ({"mapping": [{"column": "编号", "field": "Source Record"}]}, "mapping[0].field"),
    ],
)
def test_what_a_source_may_not_be_registered_with_it_is_not_changed_to(api: Api, fields: dict, bad: str) -> None:
    assert bad_fields(lambda: api.call("UpdateSource", change_of("till", list(fields), **fields))) == [bad]


@pytest.mark.parametrize("item", BUILT_IN.values(), ids=BUILT_IN)
def test_what_people_read_of_a_built_in_field_is_changed_alone(api: Api, item: Field) -> None:
    definition = resources_pb2.FieldDefinition(name=f"fields/{item.id}", display_name="改名")
    request = profiles_pb2.UpdateFieldDefinitionRequest(field_definition=definition)
    changed = api.call("UpdateFieldDefinition", request)

    assert (changed.display_name, changed.classification, changed.group, changed.mask) == (
        "改名", item.classification, item.group, item.mask
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "bad"),
    [({"retention_days": -1}, "retention_days"), ({"group": "Not One"}, "group"), ({"mask": 99}, "mask"),
     ({"permitted_purposes": ["marketing", ""]}, "permitted_purposes[1]")],
)  # fmt: skip
def test_what_a_field_may_not_be_defined_with_it_is_not_changed_to(api: Api, fields: dict, bad: str) -> None:
    api.call("CreateFieldDefinition", profiles_pb2.CreateFieldDefinitionRequest(field_id="hobby", field_definition={}))
    definition = resources_pb2.FieldDefinition(name="fields/hobby", **fields)
    request = profiles_pb2.UpdateFieldDefinitionRequest(field_definition=definition)

    assert bad_fields(lambda: api.call("UpdateFieldDefinition", request)) == [bad]


def test_an_upload_starts_one_operation_whatever_the_number_of_repeats(api: Api) -> None:
    stub = api.harness.stub(Stub)
    first = stub.ImportRecords(upload("till", csv_of(range(5)), request_id="r1"), timeout=20)
    second = stub.ImportRecords(upload("till", csv_of(range(5)), request_id="r1"), timeout=20)

    assert first.name == second.name
    assert first.name.startswith("operations/profiles-")
    assert len({upload_id for upload_id, _ in api.service.store._chunks}) == 1


def test_errors_of_missing_things_name_them_and_nothing_else(api: Api) -> None:
    for method, request, reason in [
        ("GetProfile", profiles_pb2.GetProfileRequest(name="profiles/none"), "PROFILE_NOT_FOUND"),
        ("GetReject", profiles_pb2.GetRejectRequest(name="rejects/none"), "REJECT_NOT_FOUND"),
        ("GetSource", profiles_pb2.GetSourceRequest(name="sources/none"), "SOURCE_NOT_FOUND"),
        ("GetMatchCandidate", profiles_pb2.GetMatchCandidateRequest(name="matchCandidates/x"), "CANDIDATE_NOT_FOUND"),
        ("GetFieldDefinition", profiles_pb2.GetFieldDefinitionRequest(name="fields/none"), "FIELD_NOT_FOUND"),
    ]:  # fmt: skip
        assert refusal(lambda m=method, r=request: api.call(m, r))[:2] == (grpc.StatusCode.NOT_FOUND, reason)
