"""The review of a policy change: what a revision would change, asked of the policy itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import grpc
from kehu.access.v1 import review_pb2

from services.access.chain import Chain, newest_blocks
from services.access.domain.differences import Difference as PolicyDifference
from services.access.domain.differences import Words, differences
from services.access.domain.lint import lint
from services.access.domain.policies import Policy, named_subjects, purposes_of, whatever_purpose
from services.access.domain.simulation import Asked, Concerned, Difference, Report, asked_of, compare
from services.access.domain.tables import table_faults
from services.access.methods.context import Context
from services.access.methods.policies import PolicyMethods
from services.chassis.paging import decode_token, encode_token, filter_hash, number_of, page_size_of

DECISIONS = 10_000
SUBJECTS_SHOWN = 100
REPORTS_KEPT = 4  # a page is asked for soon after the one before
FINDINGS_SHOWN = 1000
NOTHING = Words("", "")
SEVERITIES = {
    "error": review_pb2.LINT_SEVERITY_ERROR,
    "warning": review_pb2.LINT_SEVERITY_WARNING,
    "notice": review_pb2.LINT_SEVERITY_NOTICE,
}
KINDS = {
    "method": review_pb2.SIMULATED_KIND_METHOD,
    "field": review_pb2.SIMULATED_KIND_FIELD,
    "search": review_pb2.SIMULATED_KIND_SEARCH,
    "reveal": review_pb2.SIMULATED_KIND_REVEAL,
    "rows": review_pb2.SIMULATED_KIND_ROWS,
}
DIRECTIONS = {
    "loss": review_pb2.SIMULATED_DIRECTION_LOSS,
    "gain": review_pb2.SIMULATED_DIRECTION_GAIN,
    "other": review_pb2.SIMULATED_DIRECTION_OTHER,
}


class ReviewMethods(PolicyMethods):
    """The review methods of AccessService."""

    def LintPolicy(
        self, request: review_pb2.LintPolicyRequest, context: grpc.ServicerContext
    ) -> review_pb2.LintPolicyResponse:
        """Look a revision over."""
        c, content = self._context, self._find_policy(request.policy_id).content
        links, persons, everybody = c.directory.links(), c.directory.persons(), c.directory.everybody()
        with c.directory.compiling:
            found = lint(content, c.inventory, links, persons, everybody)
        count = Counter(finding.severity for finding in found)
        reply = review_pb2.LintPolicyResponse(errors=count["error"], warnings=count["warning"], notices=count["notice"])
        for finding in found[:FINDINGS_SHOWN]:
            reply.findings.add(
                severity=SEVERITIES[finding.severity],
                code=finding.code,
                field=finding.place,
                description=finding.description,
                other_field=finding.other,
            )
        return reply

    def TestPolicy(
        self, request: review_pb2.TestPolicyRequest, context: grpc.ServicerContext
    ) -> review_pb2.TestPolicyResponse:
        """Run the tables of a revision."""
        policy = self._find_policy(request.policy_id)
        self._refuse_faults(policy.content)
        wrong = table_faults(policy.content.tests, self._context.inventory)
        if wrong:
            faults = [review_pb2.TableFault(field=fault.field, description=fault.description) for fault in wrong]
            return review_pb2.TestPolicyResponse(tables=len(policy.content.tests), faults=faults)
        report = self._run_tests(policy)
        reply = review_pb2.TestPolicyResponse(
            passed=not report.failures, tables=report.tables, rows=report.rows, failed_rows=len(report.failures)
        )
        for failure in report.failures[:FINDINGS_SHOWN]:
            reply.failures.add(test=failure.test, row=failure.row, expected=failure.expected, found=failure.found)
        return reply

    def SimulatePolicy(
        self, request: review_pb2.SimulatePolicyRequest, context: grpc.ServicerContext
    ) -> review_pb2.SimulatePolicyResponse:
        """Compare a revision with the one in force; later pages are of the report of the first."""
        c = self._context
        size = page_size_of(request.page_size)
        of_filter = filter_hash(
            "simulate", request.policy_id, request.base_policy_id, request.decisions, request.subject
        )
        start = decode_token(request.page_token, of_filter)
        head = number_of(start, "head") if start else c.chain.head()
        after = number_of(start, "after")
        candidate = self._find_policy(request.policy_id)
        base = self._find_policy(request.base_policy_id or "current")
        self._refuse_faults(candidate.content)
        report = simulated(c, base, candidate, head, request.decisions or DECISIONS)
        changes = report.sorted_changes(request.subject)
        more = {"head": head, "after": after + size} if len(changes) > after + size else None
        return review_pb2.SimulatePolicyResponse(
            base_version=base.number,
            decisions=report.decisions,
            decisions_gained=report.gained,
            decisions_lost=report.lost,
            decisions_otherwise=report.otherwise,
            decisions_drifted=report.drifted,
            people=report.people,
            methods=report.methods,
            people_gaining=len(report.people_with("gain")),
            people_losing=len(report.people_with("loss")),
            changes=[_change_message(*change) for change in changes[after : after + size]],
            next_page_token=encode_token(more, of_filter) if more else "",
        )

    def ComparePolicies(
        self, request: review_pb2.ComparePoliciesRequest, context: grpc.ServicerContext
    ) -> review_pb2.ComparePoliciesResponse:
        """Say what is different."""
        policy = self._find_policy(request.policy_id)
        base = self._find_policy(request.base_policy_id or "current")
        size, of_filter = page_size_of(request.page_size), filter_hash("compare", policy.id, base.id)
        after = number_of(decode_token(request.page_token, of_filter), "after")
        found = differences(base.content, policy.content)
        count = Counter(difference.change for difference in found)
        more = encode_token({"after": after + size}, of_filter) if len(found) > after + size else ""
        return review_pb2.ComparePoliciesResponse(
            base_version=base.number,
            author=policy.author,
            comment=policy.comment,
            removed=count["removed"],
            changed=count["changed"],
            added=count["added"],
            differences=[_difference_message(difference) for difference in found[after : after + size]],
            next_page_token=more,
        )


def _difference_message(found: PolicyDifference) -> review_pb2.PolicyDifference:
    before, after = found.before or NOTHING, found.after or NOTHING
    return review_pb2.PolicyDifference(
        change=found.change,
        kind=found.kind,
        before=before.english,
        after=after.english,
        before_zh=before.chinese,
        after_zh=after.chinese,
    )


def simulated(c: Context, base: Policy, candidate: Policy, head: int, decisions: int) -> Report:
    """Return the report of a simulation; the last few are kept for the pages that follow.

    `head` is the newest audit block taken into account: entries written meanwhile change no page.
    """
    key = (base.id, candidate.id, c.directory.snapshot().rules_version, head, decisions)
    known = c.reports.get(key)
    if known is None:
        contents = (base.content, candidate.content)
        known = compare(
            c.directory.snapshot_of(base),
            c.directory.snapshot_of(candidate),
            recorded(c.chain, head, decisions),
            c.directory.everybody(),
            c.inventory,
            purposes_of(*contents),
            named_subjects(*contents),
            whatever_purpose(c.inventory.actions, *contents),
        )
        while len(c.reports) >= REPORTS_KEPT:
            c.reports.pop(next(iter(c.reports)), None)
        c.reports[key] = known
    return known


def recorded(chain: Chain, head: int, count: int) -> Iterator[Asked]:
    """Yield the last `count` requests that the policy decided, from block `head` downwards, the newest first."""
    asked = (asked_of(entry) for block in newest_blocks(chain, head) for entry in reversed(block.entries))
    yield from islice((request for request in asked if request is not None), count)


def _change_message(change: Difference, who: Concerned) -> review_pb2.SimulatedChange:
    return review_pb2.SimulatedChange(
        kind=KINDS[change.kind],
        direction=DIRECTIONS[change.direction],
        department=change.department,
        resource=change.resource,
        action=change.action,
        purposes=sorted(who.purposes),
        before=change.before,
        after=change.after,
        people=len(who.subjects),
        subjects=sorted(who.subjects)[:SUBJECTS_SHOWN],
        recorded=who.recorded,
    )
