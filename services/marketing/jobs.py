"""The work that outlives a request: a campaign's run, and the withdrawal behind an unsubscribe link."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from google.protobuf.message import Message
from kehu.marketing.v1 import messages_pb2, resources_pb2

from services.chassis.errors import Conflict, KehuError, NotAllowed, Unavailable
from services.chassis.jobs import ATTEMPTS, Job, LeaseLost, MongoOperations, OperationStore, Paused
from services.marketing.domain.campaigns import UNDER_WAY, Campaign, CampaignState, QuietPolicy, step
from services.marketing.domain.deliveries import (
    OVER,
    Delivery,
    DeliveryState,
    Run,
    RunState,
    close_page,
    delivery_id_of,
    ended,
    given_up,
    open_page,
    planned,
    recovered,
    tally,
)
from services.marketing.domain.errors import CampaignNotFound, RunNotFound
from services.marketing.domain.planning import (
    Plan,
    PlanTerms,
    SkipReason,
    affordable_messages,
    plan_deliveries,
    quiet_until,
)
from services.marketing.gate import Gate, People
from services.marketing.ports import Audiences, Consents, Waiting
from services.marketing.sending import Clocks, Page, Sender
from services.marketing.store import MarketingStore
from services.marketing.wire import report_to_proto

RUN = "run_campaign"
REVOKE = "revoke_consent"
START_GRACE = timedelta(seconds=30)  # a run whose campaign never named it by then was not started
PERSON_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 30.0  # so that a cancelled or changed campaign is noticed


class CampaignRunner:
    """Walks the audience, a page each turn; a page is planned, sent, counted once, and only then left behind."""

    def __init__(
        self,
        store: MarketingStore,
        audiences: Audiences,
        gate: Gate,
        sender: Sender,
        clocks: Clocks,
        operations: OperationStore | None = None,
    ) -> None:
        self._store = store
        self._audiences = audiences
        self._gate = gate
        self._sender = sender
        self._clocks = clocks
        self._operations = operations or MongoOperations("marketing")

    def __call__(self, job: Job) -> Message:
        """Run, or go on with, the run named by the job's arguments; a run that nobody takes up again fails.

        Raises:
            Paused: it cannot go on now; it is taken up again by itself.
        """
        run_id = str(job.args["run_id"])
        try:
            return self._run_or_give_up(job, run_id)
        except Waiting as wait:
            self._note(run_id, wait.reason)
            raise Paused(wait.reason, wait.seconds) from wait
        except Conflict as error:  # a person changed the campaign at this very moment: look again
            raise Paused("CHANGED", 0.2) from error

    def _run_or_give_up(self, job: Job, run_id: str) -> resources_pb2.CampaignReport:
        is_last_try = self._tries(job) + 1 >= ATTEMPTS  # asked first: the figure is set back with each progress
        try:
            return self._run(job, run_id)
        except (Waiting, LeaseLost, Paused, Conflict, Unavailable):
            raise
        except Exception as error:
            reason = error.reason if isinstance(error, KehuError) else "JOB_FAILED"
            if is_last_try or isinstance(error, KehuError):
                self._give_up(job, run_id, reason)
            raise

    def _tries(self, job: Job) -> int:
        """Return how many tries of the job failed before this one."""
        document = self._operations.get(job.name)
        return int(str(document["attempts"])) if document else 0

    def _run(self, job: Job, run_id: str) -> resources_pb2.CampaignReport:
        run = self._required(run_id)
        if run.failure_reason:  # a worker died while it gave the run up
            raise NotAllowed("the run was given up; its report says why")
        if run.state in OVER:
            self._end_campaign(run)
            return self._report(run)
        campaign = self._may_go_on(run)
        never_began = campaign.state is CampaignState.CANCELLED and not run.page
        if not never_began and (run.page_ids or not run.is_last_page):
            run = self._work_off(job, run if run.page_ids else self._open(run))
            if not run.is_last_page:
                raise Paused("TURN", 0.0)  # one page a turn: no withdrawal waits behind a long campaign
            campaign = self._campaign(run)
        state = RunState.CANCELLED if campaign.state is CampaignState.CANCELLED else RunState.DONE
        run = self._store.save_run(ended(run, state, self._clocks.now()))
        self._end_campaign(run)
        return self._report(run)

    def _give_up(self, job: Job, run_id: str, reason: str) -> None:
        """End a run and its campaign with this reason; who was not written to counts as skipped."""
        run = self._required(run_id)
        if run.state not in OVER:
            if not run.failure_reason:
                run = self._store.save_run(replace(run, failure_reason=reason))
            now = self._clocks.now()
            in_hand = self._recover(run, now) if run.page_ids else []
            page = Page({delivery.delivery_id: delivery for delivery in in_hand}, People({}, {}))
            self._sender.skip(page, SkipReason.RUN_FAILED, run.failure_reason)
            run = self._store.save_run(given_up(run, page.deliveries.values(), now))
        self._end_campaign(run)
        job.save({}, self._report(run))

    def _open(self, run: Run) -> Run:
        found = self._audiences.page(run.rule, run.next_token)
        return self._store.save_run(open_page(run, found.profile_ids, found.next_token, found.total, found.data_cutoff))

    def _work_off(self, job: Job, run: Run) -> Run:
        """Plan, send and count the page in hand."""
        page = self._plan(run)
        turns = 0

        def go_on(current: Page) -> Campaign:
            nonlocal run, turns
            if turns and run.state is not RunState.RUNNING:
                run = self._store.save_run(replace(run, state=RunState.RUNNING, pause_reason=""))
            turns += 1
            job.save({}, report_to_proto(run, tally(current.deliveries.values()), self._campaign(run)))
            campaign = self._may_go_on(run)
            if campaign.state is CampaignState.CANCELLED:
                self._sender.skip(current, SkipReason.CANCELLED)
            return campaign

        self._sender.send(page, go_on, lambda: self._may_go_on(run))
        run = self._store.save_run(close_page(run, page.deliveries.values()))
        job.save({}, report_to_proto(run, {}, self._campaign(run)))
        return run

    def _plan(self, run: Run) -> Page:
        """Return the page with a delivery for each of its recipients, made now or before a crash."""
        now = self._clocks.now()
        campaign = self._campaign(run)
        known = {delivery.delivery_id: delivery for delivery in self._recover(run, now)}
        missing = [i for i in run.page_ids if delivery_id_of(run.run_id, i) not in known]
        ids = missing + [d.profile_id for d in known.values() if d.state is DeliveryState.PLANNED]
        is_cancelled = campaign.state is CampaignState.CANCELLED
        people = People({}, {}) if is_cancelled else self._gate.people(ids, campaign.channel)
        if missing:
            made = self._planned(run, campaign, missing, people, list(known.values()))
            if self._store.save_deliveries(made):
                raise LeaseLost("another worker has this page")
            known |= {delivery.delivery_id: replace(delivery, version=1) for delivery in made}
        return Page(known, people)

    def _recover(self, run: Run, now: datetime) -> list[Delivery]:
        """Return the page's deliveries, with what a dead worker had in hand settled."""
        found = self._store.page(run.run_id, run.page)
        settled = [(delivery, recovered(delivery, now)) for delivery in found]
        changed = [after for before, after in settled if after != before]
        if changed and self._store.save_deliveries(changed):
            raise LeaseLost("another worker has this page")
        return [replace(after, version=after.version + (after != before)) for before, after in settled]

    def _planned(
        self, run: Run, campaign: Campaign, ids: list[str], people: People, known: list[Delivery]
    ) -> list[Delivery]:
        now = self._clocks.now()
        blank = Delivery(
            delivery_id="", campaign_id=run.campaign_id, run_id=run.run_id, page=run.page, profile_id="",
            channel=campaign.channel, purpose_id=campaign.purpose_id, state=DeliveryState.PLANNED, plan_time=now,
        )  # fmt: skip
        if campaign.state is CampaignState.CANCELLED:
            return [planned(blank, Plan(one, one, SkipReason.CANCELLED), now) for one in ids]
        candidates = self._gate.look(campaign, run.run_id, ids, people, now).candidates
        persons = [candidate.person_id for candidate in candidates]
        in_run = self._store.persons_in_run(run.run_id, persons, run.page) | {d.profile_id for d in known}
        charged = sum(run.counts.get(state, 0) for state in ("SENT", "UNKNOWN")) + sum(
            delivery.state not in (DeliveryState.SKIPPED, DeliveryState.FAILED) for delivery in known
        )
        affordable = affordable_messages(campaign.budget_cents, campaign.message_cost_cents, charged)
        terms = PlanTerms(campaign.frequency_cap, campaign.quiet_hours, affordable, now, frozenset(in_run))
        return [
            planned(blank, plan, now, people.token(plan.profile_id, plan.person_id))
            for plan in plan_deliveries(candidates, terms)
        ]

    def _may_go_on(self, run: Run) -> Campaign:
        """Return the campaign when the run may work now.

        Raises:
            Waiting: it must wait for its start, its time, a person, or the end of quiet hours.
        """
        campaign = self._campaign(run)
        now = self._clocks.now()
        if campaign.state is CampaignState.CANCELLED:
            return campaign
        if campaign.run_id != run.run_id:
            raise self._not_started(run, now)
        if campaign.state is CampaignState.PAUSED:
            raise Waiting("PERSON", PERSON_SECONDS)
        if campaign.state is CampaignState.SCHEDULED:
            campaign = self._begin(campaign, now)
        quiet_end = quiet_until(campaign.quiet_hours, now)
        if quiet_end is not None and campaign.quiet_hours.policy is QuietPolicy.NEXT_SLOT:
            raise Waiting("QUIET_HOURS", min((quiet_end - now).total_seconds(), LONGEST_WAIT_SECONDS))
        return campaign

    def _not_started(self, run: Run, now: datetime) -> Waiting:
        """Return what ends a job whose campaign does not know its run: a start that failed half-way."""
        created = run.start_time or now
        if now - created < START_GRACE:
            return Waiting("STARTING", 0.2)
        self._store.save_run(ended(run, RunState.CANCELLED, now))
        return Waiting("STARTING", 0.2)

    def _begin(self, campaign: Campaign, now: datetime) -> Campaign:
        ahead = (campaign.schedule_time - now).total_seconds() if campaign.schedule_time else 0.0
        if ahead > 0:
            raise Waiting("SCHEDULED", min(ahead, LONGEST_WAIT_SECONDS))
        begun, fact = step(campaign, "begin", now)
        return self._store.save_campaign(begun, [fact])

    def _end_campaign(self, run: Run) -> None:
        """End the campaign as its run ended, though somebody paused it meanwhile; cancelled it stays."""
        campaign = self._campaign(run)
        if campaign.run_id != run.run_id or campaign.state not in UNDER_WAY:
            return
        name = "fail" if run.state is RunState.FAILED else "finish"
        over, fact = step(campaign, name, self._clocks.now())
        self._store.save_campaign(over, [fact])

    def _note(self, run_id: str, reason: str) -> None:
        """Show in the report what the run waits for."""
        run = self._store.run(run_id)
        if run is None or run.state in OVER or run.pause_reason == reason:
            return
        state = RunState.SCHEDULED if reason in ("SCHEDULED", "STARTING") else RunState.PAUSED
        try:
            self._store.save_run(replace(run, state=state, pause_reason=reason))
        except Conflict as error:
            raise LeaseLost("another worker has this run") from error

    def _required(self, run_id: str) -> Run:
        run = self._store.run(run_id)
        if run is None:
            raise RunNotFound(run_id)
        return run

    def _campaign(self, run: Run) -> Campaign:
        campaign = self._store.campaign(run.campaign_id)
        if campaign is None:
            raise CampaignNotFound(run.campaign_id)
        return campaign

    def _report(self, run: Run) -> resources_pb2.CampaignReport:
        return report_to_proto(run, {}, self._campaign(run))


class ConsentRevoker:
    """Tells the consent service what an unsubscribe link meant; the suppression holds already."""

    def __init__(self, store: MarketingStore, consents: Consents) -> None:
        self._store = store
        self._consents = consents

    def __call__(self, job: Job) -> Message:
        """Withdraw the consent behind a delivery; tried again until the consent service took it."""
        delivery = self._store.delivery(str(job.args["delivery_id"]))
        if delivery is not None:
            request_id = str(job.args.get("request_id", delivery.delivery_id))
            try:
                self._consents.revoke(delivery.profile_id, delivery.purpose_id, delivery.channel, request_id)
            except Waiting as wait:
                raise Paused(wait.reason, wait.seconds) from wait
        return messages_pb2.UnsubscribeResponse(message="consent withdrawn")
