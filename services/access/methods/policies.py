"""Policies and roles: draft, validate, submit, approve, roll back, explain."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC

import grpc
from kehu.access.v1 import access_pb2 as pb

from services.access.defaults import default_content
from services.access.domain.checks import faults
from services.access.domain.errors import PolicyInvalid, PolicyNotFound, PolicyOutdated, PolicyTestsFailed, RoleNotFound
from services.access.domain.policies import (
    Content,
    Policy,
    at_most,
    can_administer,
    extended,
    near_misses,
    published,
    role_names,
    rolled_back,
    submitted,
)
from services.access.domain.questions import missing
from services.access.domain.simulation import decisions
from services.access.domain.tables import (
    PolicyTest,
    TableReport,
    failure_violations,
    links_of,
    run_tests,
    table_faults,
)
from services.access.methods.approving import watch_approval
from services.access.methods.context import Context
from services.access.methods.messages import (
    clause_message,
    content_of,
    heading_message,
    policy_message,
    rule_message,
    rule_of,
)
from services.access.publication import MOST_POLICY_BYTES, row_filter_message
from services.chassis.access import NO_PURPOSE, Caller, Condition, RowFilter
from services.chassis.access.wire_conditions import seconds
from services.chassis.errors import AlreadyExists, FieldViolation
from services.chassis.paging import decode_seen, decode_token, encode_seen, encode_token, filter_hash, page_size_of
from services.chassis.records import new_id, unchanged_since
from services.chassis.server import current_call

# what comes with this version of Kehu: to compare with, for an installation keeps its own when Kehu is upgraded
SHIPPED = Policy("shipped", "shipped", 0, 0, "the policy of this version of Kehu", default_content(), "svc:access")


def asked_by(request: pb.ExplainAccessRequest) -> Caller:
    """Return the caller that an explanation is about."""
    shown = request.HasField("second_factor_time")
    return Caller(
        request.subject,
        request.subject.partition(":")[0],
        request.department,
        request.purpose,
        auth_time=request.second_factor_time.ToDatetime(UTC) if shown else None,
        methods=("mfa",) if shown else (),
        address=request.address,
        device=tuple(sorted(request.device.items())),
    )


class PolicyMethods:
    """The policy and role methods of AccessService."""

    _context: Context

    def CreatePolicy(self, request: pb.CreatePolicyRequest, context: grpc.ServicerContext) -> pb.Policy:
        """Draft a revision; faults are shown by validate and refused by submit."""
        author, current = current_call().caller.subject, self._context.directory.policy.number
        policy_id = new_id(request.request_id, "policies", author)
        given, content = request.policy, content_of(request.policy)
        base = given.base_version or current
        content = content if content.tests else replace(content, tests=self._tests_of(base))
        draft = Policy(policy_id, "draft", 0, base, given.comment, content, author)
        try:
            return policy_message(self._context.policies.insert(draft, request.request_id))
        except AlreadyExists:
            return policy_message(self._find_policy(policy_id))  # the same request again

    def GetPolicy(self, request: pb.GetPolicyRequest, context: grpc.ServicerContext) -> pb.Policy:
        """Return one with its rules."""
        return policy_message(self._find_policy(request.policy_id), first_rule=request.first_rule)

    def ExtendPolicy(self, request: pb.ExtendPolicyRequest, context: grpc.ServicerContext) -> pb.Policy:
        """Add rules to a draft."""
        policy, caller = self._find_policy(request.policy_id), current_call().caller.subject
        longer = extended(policy, [rule_of(rule) for rule in request.rules], caller)
        with unchanged_since(request.etag, policy.version, f"policies/{policy.id}"):
            return heading_message(self._context.policies.save(longer).heading())

    def ListPolicies(self, request: pb.ListPoliciesRequest, context: grpc.ServicerContext) -> pb.ListPoliciesResponse:
        """Return a page, the newest first."""
        size, of_filter = page_size_of(request.page_size), filter_hash("policies")
        found = self._context.policies.page(decode_seen(request.page_token, of_filter), size + 1)
        last = found[size - 1] if len(found) > size else None
        more = encode_seen((last.create_time, last.id) if last and last.create_time else None, of_filter)
        return pb.ListPoliciesResponse(policies=map(heading_message, found[:size]), next_page_token=more)

    def ValidatePolicy(
        self, request: pb.ValidatePolicyRequest, context: grpc.ServicerContext
    ) -> pb.ValidatePolicyResponse:
        """List the faults of a revision."""
        found = self._faults(self._find_policy(request.policy_id).content)
        reply = pb.ValidatePolicyResponse(valid=not found)
        for fault in found:
            reply.faults.add(field=fault.field, description=fault.description)
        return reply

    def SubmitPolicy(self, request: pb.SubmitPolicyRequest, context: grpc.ServicerContext) -> pb.Policy:
        """Hand a draft over."""
        policy, caller = self._find_policy(request.policy_id), current_call().caller.subject
        if policy.state == "submitted" and policy.submitter == caller:
            return policy_message(policy)
        if not policy.comment.strip():
            violation = FieldViolation("comment", "say why it is changed: the approver and the auditor ask")
            raise PolicyInvalid("The policy gives no reason; draft it with a comment.", violations=[violation])
        handed_over = submitted(policy, caller, self._context.directory.policy.number)
        self._refuse_faults(policy.content)
        self._refuse_failures(policy)
        return policy_message(self._context.policies.save(handed_over))

    def ApprovePolicy(self, request: pb.ApprovePolicyRequest, context: grpc.ServicerContext) -> pb.Policy:
        """Put a submitted revision in force."""
        policy, caller = self._find_policy(request.policy_id), current_call().caller.subject
        if policy.state == "published" and policy.approver == caller:
            return policy_message(policy)
        current = self._context.directory.policy.number
        in_force = published(policy, caller, current, self._may_approve_alone())
        self._refuse_faults(policy.content)
        self._refuse_failures(policy)
        watch_approval(self._context, caller, (policy.author, policy.submitter), f"policies/{policy.id}")
        return self._publish(in_force, stored=True)

    def RollbackPolicy(self, request: pb.RollbackPolicyRequest, context: grpc.ServicerContext) -> pb.Policy:
        """Put an earlier version in force again."""
        policy, caller = self._find_policy(request.policy_id), current_call().caller.subject
        policy_id = new_id(request.request_id, "rollback", caller)
        known = self._context.policies.get(policy_id) if request.request_id else None
        if known is not None:
            return policy_message(known)
        current = self._context.directory.policy.number
        in_force = rolled_back(policy, policy_id, caller, current, request.comment)
        self._refuse_faults(policy.content)
        return self._publish(in_force, stored=False)

    def ExplainAccess(
        self, request: pb.ExplainAccessRequest, context: grpc.ServicerContext
    ) -> pb.ExplainAccessResponse:
        """Decide for somebody else, with reasons."""
        caller, snapshot = asked_by(request), self._context.directory.snapshot()
        if request.HasField("time"):
            snapshot = snapshot.at(seconds(request.time))
        ways = self._context.inventory.narrowings(request.resource, request.action)
        found_by = list(decisions(snapshot, caller, request.resource, request.action, ways))
        decision = next((each for each in found_by if each.allowed), found_by[0])
        names, obligations = sorted(snapshot.names(caller)), decision.obligations
        reply = pb.ExplainAccessResponse(
            allowed=decision.allowed,
            reason=decision.reason,
            policy_version=decision.policy_version,
            rule=rule_message(decision.rule) if decision.rule else None,
            names=names,
            shown_groups=sorted(obligations.shown),
            masked_groups=sorted(obligations.masked),
            searchable_groups=sorted(obligations.searchable),
        )
        for clause in obligations.row_filter:
            reply.row_clauses.append(clause_message(clause))
            if isinstance(clause, Condition):
                found = RowFilter(caller.subject, caller.department, request.resource, clause.field, clause.values)
                reply.row_filters.append(row_filter_message(found))
        if decision.reason == "CONDITION_NOT_MET":
            reply.unmet_conditions.extend(snapshot.rules.unmet(decision.rule, snapshot.facts(caller)))
        if decision.reason == "NO_MATCHING_RULE":
            asked = (request.department, request.resource, request.action, request.purpose or NO_PURPOSE)
            content = self._context.directory.policy.content
            for rule, field in near_misses(content, asked, names):
                words = missing(rule, field, request.subject, request.department)
                reply.near_misses.add(
                    rule=rule_message(rule), field=field, missing=words.english, missing_zh=words.chinese
                )
        return reply

    def GetRole(self, request: pb.GetRoleRequest, context: grpc.ServicerContext) -> pb.Role:
        """Return one role of the policy in force."""
        role = f"role:{request.role_id}"
        if role not in role_names(self._context.directory.policy.content):
            raise RoleNotFound("The policy in force has no such role.", metadata={"role_id": request.role_id})
        return self._role(role)

    def ListRoles(self, request: pb.ListRolesRequest, context: grpc.ServicerContext) -> pb.ListRolesResponse:
        """Return a page of roles by name."""
        size, of_filter = page_size_of(request.page_size), filter_hash("roles")
        after = str(decode_token(request.page_token, of_filter).get("after", ""))
        found = [role for role in role_names(self._context.directory.policy.content) if role > after]
        more = encode_token({"after": found[size - 1]}, of_filter) if len(found) > size else ""
        return pb.ListRolesResponse(roles=[self._role(role) for role in found[:size]], next_page_token=more)

    def _role(self, role: str) -> pb.Role:
        content = self._context.directory.policy.content
        rules = [rule for rule in content.rules if rule[0] == role]
        links = [*content.links, *self._context.directory.links()]
        return pb.Role(
            name=f"roles/{role.removeprefix('role:')}",
            departments=sorted({rule[1] for rule in rules}),
            rules=[rule_message(rule) for rule in rules],
            includes=sorted({link[1] for link in links if link[0] == role}),
            members=sorted({link[0] for link in links if link[1] == role}),
        )

    def _find_policy(self, policy_id: str) -> Policy:
        if policy_id == "current":
            return self._context.directory.policy
        if policy_id == SHIPPED.id:
            return SHIPPED
        found = self._context.policies.get(policy_id)
        if found is None:
            raise PolicyNotFound("No policy revision has this id.", metadata={"policy_id": policy_id})
        return found

    def _faults(self, content: Content) -> list[FieldViolation]:
        directory = self._context.directory
        links, persons = directory.links(), directory.persons()
        with directory.compiling:
            found = faults(content, self._context.inventory, links, persons)
            if not found and directory.bytes_of(content) > MOST_POLICY_BYTES:
                text = "it does not fit into one message to a process: say it with fewer names, by roles and wildcards"
                found = [FieldViolation("rules", text)]
        return found

    def _refuse_faults(self, content: Content) -> None:
        found = self._faults(content)
        if found:
            raise PolicyInvalid("The policy has faults; mend them in a new draft.", violations=found)

    def _tests_of(self, number: int) -> tuple[PolicyTest, ...]:
        """Return the tests of the version a draft is made from: they hold until others take their place."""
        found = self._context.policies.numbered(number)
        return found.content.tests if found else ()

    def _run_tests(self, policy: Policy) -> TableReport:
        c, tests = self._context, policy.content.tests
        return run_tests(tests, c.directory.snapshot_of(policy, links_of(tests)), c.inventory)

    def _refuse_failures(self, policy: Policy) -> None:
        """Refuse a policy that its own tables contradict; a rollback is not held up by them."""
        wrong = table_faults(policy.content.tests, self._context.inventory)
        if wrong:
            raise PolicyInvalid("The policy's tests have faults; mend them in a new draft.", violations=wrong)
        failed = failure_violations(self._run_tests(policy))
        if failed:
            raise PolicyTestsFailed("The policy fails its own tests; mend rules or tables.", violations=failed)

    def _publish(self, policy: Policy, stored: bool) -> pb.Policy:
        """Write the next version; whoever took its number first wins."""
        try:
            write = self._context.policies.save if stored else self._context.policies.insert
            in_force = write(policy)
        except AlreadyExists as error:
            raise PolicyOutdated("Another version came into force just now; draft it anew.") from error
        self._context.directory.refresh(at_once=True)
        return policy_message(in_force)

    def _may_approve_alone(self) -> bool:
        """Tell whether four eyes are waived: by configuration, and only while there is one administrator.

        Who was invited counts, or the one who invites could approve alone until they come.
        """
        if not self._context.self_approval:
            return False
        directory = self._context.directory
        rules = at_most(directory.policy.content, directory.links())
        people = [person for person in directory.everybody() if person[0].startswith("user:")]
        able = [person for person in people if can_administer(rules, *person)]
        return len(able) == 1
