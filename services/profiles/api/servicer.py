"""The servicer: all parts together."""

from __future__ import annotations

from kehu.profiles.v1 import profiles_pb2_grpc

from services.profiles.api.candidates import CandidatesPart
from services.profiles.api.changes import ChangesPart
from services.profiles.api.common import Tools
from services.profiles.api.exports import ExportsPart
from services.profiles.api.fields import FieldsPart
from services.profiles.api.internal import InternalPart
from services.profiles.api.lifecycle import LifecyclePart
from services.profiles.api.models import ModelsPart
from services.profiles.api.networks import NetworksPart
from services.profiles.api.overrides import OverridesPart
from services.profiles.api.previews import PreviewsPart
from services.profiles.api.profiles import ProfilesPart
from services.profiles.api.protection import ProtectionPart
from services.profiles.api.quality import QualityPart
from services.profiles.api.quality_rules import QualityRulesPart
from services.profiles.api.rejects import RejectsPart
from services.profiles.api.relations import RelationsPart
from services.profiles.api.resolutions import ResolutionsPart
from services.profiles.api.retention import RetentionPart
from services.profiles.api.reveals import RevealsPart
from services.profiles.api.rules import RulesPart
from services.profiles.api.sources import SourcesPart
from services.profiles.api.streams import StreamsPart
from services.profiles.api.verdicts import VerdictsPart


class ProfilesServicer(
    SourcesPart,
    StreamsPart,
    PreviewsPart,
    RulesPart,
    RejectsPart,
    ProfilesPart,
    CandidatesPart,
    FieldsPart,
    ChangesPart,
    OverridesPart,
    RelationsPart,
    NetworksPart,
    VerdictsPart,
    ResolutionsPart,
    RetentionPart,
    QualityRulesPart,
    QualityPart,
    ProtectionPart,
    RevealsPart,
    ExportsPart,
    LifecyclePart,
    ModelsPart,
    InternalPart,
    profiles_pb2_grpc.ProfilesServiceServicer,
):
    """Serves kehu.profiles.v1.ProfilesService."""

    def __init__(self, tools: Tools) -> None:
        """Serve with these tools."""
        self.tools = tools
