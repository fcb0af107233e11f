"""The composition root of access: reads the configuration, builds the objects."""

from __future__ import annotations

from kehu.access.v1 import access_pb2_grpc

from services.access.anchors import FolderAnchor
from services.access.api import AccessServicer
from services.access.bootstrap import read_bootstrap, seed
from services.access.breaches import BreachedPasswords
from services.access.chain import Chain
from services.access.company import Companies
from services.access.directory import Directory, OwnSnapshots
from services.access.domain.tokens import Issuer
from services.access.domain.webauthn import RelyingParty
from services.access.events import AccessConsumer
from services.access.inventory import descriptors_path, read_inventory
from services.access.keeper import Keeper
from services.access.keys import audit_key, checkpoint_key, token_keys
from services.access.methods.context import Argon2, Context
from services.access.recertifying import Recertifier
from services.access.reminding import Reminder
from services.access.sentinel import Sentinel
from services.access.store import mongo, once
from services.access.store.alerts import AlertRecord, MongoAlerts
from services.access.store.issuers import IssuerRecord, Issuers, MongoIssuers
from services.access.store.mongo_trail import MongoBlocks, MongoCheckpoints
from services.access.store.names import MongoNames, Names
from services.access.store.once import Once, Uses
from services.access.store.ports import Blocks, Checkpoints, Policies, Principals, Revocations
from services.access.store.recertifications import RECORDS as RECERTIFICATION_RECORDS
from services.access.store.recertifications import MongoRecertifications
from services.access.store.requests import AccessRequestRecord, MongoRequests
from services.access.store.sessions import MongoSessions, Sessions
from services.access.store.shadows import MongoShadows
from services.access.store.shares import MongoShares, ShareRecord
from services.access.store.windows import MongoQuotaWindows
from services.chassis import records
from services.chassis.access import TokenVerifier
from services.chassis.config import ProcessConfig
from services.chassis.crypto import Sealer
from services.chassis.server import Serving


def serving(config: ProcessConfig) -> Serving:
    """Return what the chassis serves for access."""
    records.connect(config, "access")
    wanted = read_bootstrap(config.bootstrap_file)
    sealer = Sealer("access", config.keys_dir, config.protection.cipher_of_keys)
    stores = (mongo.MongoPrincipals(sealer), mongo.MongoPolicies(), mongo.MongoRevocations(), MongoBlocks())
    mongo_uses, mongo_once, mongo_sessions = once.MongoUses(), once.MongoOnce(), MongoSessions()
    names, issuers = MongoNames(), MongoIssuers()
    context = build_context(config, *stores, MongoCheckpoints(), mongo_uses, mongo_once, mongo_sessions, names, issuers)

    def prepare() -> None:
        mongo.ensure_indexes()
        mongo_uses.ensure_indexes()
        mongo_once.ensure_indexes()
        mongo_sessions.ensure_indexes()
        names.ensure_indexes()
        MongoQuotaWindows().ensure_indexes()
        seed(context, wanted)
        context.chain.head()

    sentinel, reminder = Sentinel(context.chain.blocks, context.alerts), Reminder(context.requests)
    recertifier = Recertifier(context, config.recertification_days)
    keeper = Keeper(context.chain, config.audit_years, sentinel, reminder=reminder, recertifier=recertifier)
    return Serving(
        service="access",
        servicers=[(access_pb2_grpc.add_AccessServiceServicer_to_server, AccessServicer(context))],
        records=(*mongo.RECORDS, IssuerRecord, AlertRecord, AccessRequestRecord, ShareRecord, *RECERTIFICATION_RECORDS),
        background=[keeper],
        prepare=prepare,
    )


def build_context(
    config: ProcessConfig,
    principals: Principals,
    policies: Policies,
    revocations: Revocations,
    blocks: Blocks,
    checkpoints: Checkpoints,
    uses: Uses,
    spent: Once,
    sessions: Sessions,
    names: Names,
    issuers: Issuers,
) -> Context:
    """Return the servicer's context over these stores, with the keys of the installation."""
    folder, keys = config.keys_dir, token_keys(config.keys_dir)
    anchor = FolderAnchor(config.audit_anchor) if config.audit_anchor else None
    passwords = Argon2()
    requests, shares = MongoRequests(), MongoShares()
    directory = Directory(principals, policies, revocations, keys, requests=requests, shares=shares, issuers=issuers)
    return Context(
        principals=principals,
        policies=policies,
        revocations=revocations,
        directory=directory,
        chain=Chain(blocks, audit_key(folder), checkpoints, checkpoint_key(folder), anchor),
        issuer=Issuer(keys, config.token_issuer, config.token_audience),
        own_tokens=TokenVerifier(OwnSnapshots(directory, keys), config.token_issuer, config.token_audience),
        inventory=read_inventory(descriptors_path()),
        passwords=passwords,
        decoy=passwords.hash("nobody has this secret"),
        self_approval=config.allow_self_approval,
        uses=uses,
        shadows=MongoShadows(),
        once=spent,
        sessions=sessions,
        names=names,
        alerts=MongoAlerts(),
        requests=requests,
        shares=shares,
        recertifications=MongoRecertifications(),
        issuers=issuers,
        companies=Companies(config.loopback_issuers),
        breached=BreachedPasswords(config.breached_passwords),
        windows=MongoQuotaWindows(),
        token_endpoints=(config.token_issuer, f"{config.public_url}/oauth2/token"),
        relying_party=RelyingParty(config.webauthn_id, config.webauthn_origins),
    )


def consuming(config: ProcessConfig) -> AccessConsumer:
    """Return what `kehu consume access` runs."""
    records.connect(config, "access")
    return AccessConsumer(MongoNames(), MongoShares())


def working(config: ProcessConfig) -> None:
    """Access has no long work."""
