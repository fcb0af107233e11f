"""The peer's gateway: FastAPI with a pydantic response model in front of a grpc.aio unary call."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from datetime import datetime

import grpc
from fastapi import FastAPI
from kehu.consent.v1 import consent_pb2 as pb
from kehu.consent.v1 import consent_pb2_grpc
from pydantic import BaseModel


class Consent(BaseModel):
    name: str
    purpose_id: str
    channel: str
    state: str
    notice_id: str
    notice_version: int
    language: str
    wording_hash: str
    shown_time: datetime
    answer_time: datetime
    collected_via: str
    masked_address: str
    origin_profile_id: str


class Consents(BaseModel):
    consents: list[Consent]
    next_page_token: str


@asynccontextmanager
async def lifespan(app):
    async with grpc.aio.insecure_channel(os.environ["PEER_SERVICE"]) as channel:
        app.state.stub = consent_pb2_grpc.ConsentServiceStub(channel)
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/v1/profiles/{profile_id}/consents", response_model=Consents)
async def list_consents(profile_id: str, page_size: int = 50) -> Consents:
    request = pb.ListConsentsRequest(profile_id=profile_id, page_size=page_size)
    reply = await app.state.stub.ListConsents(request, timeout=10)
    return Consents(
        consents=[
            Consent(
                name=item.name,
                purpose_id=item.purpose_id,
                channel=item.channel,
                state=pb.ConsentState.Name(item.state),
                notice_id=item.notice_id,
                notice_version=item.notice_version,
                language=item.language,
                wording_hash=item.wording_hash,
                shown_time=item.shown_time.ToDatetime(),
                answer_time=item.answer_time.ToDatetime(),
                collected_via=pb.CollectedVia.Name(item.collected_via),
                masked_address=item.masked_address,
                origin_profile_id=item.origin_profile_id,
            )
            for item in reply.consents
        ],
        next_page_token=reply.next_page_token,
    )
