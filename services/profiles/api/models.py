"""Match models: learnt, read, activated by a second person, undone."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import grpc
from google.longrunning import operations_pb2
from kehu.profiles.v1 import matching_pb2 as pb

from services.chassis.errors import FieldViolation, Invalid
from services.chassis.jobs import Owner
from services.chassis.server import current_call
from services.profiles.api.common import Tools, id_of, page_of
from services.profiles.domain.model import default_model
from services.profiles.training.learning import TRAIN
from services.profiles.training.messages import head_message, model_message, shipped_message
from services.profiles.training.models import ROLL_BACK, Models
from services.profiles.training.values import IN_USE, ModelUse


class ModelsPart:
    """RPCs of match models."""

    tools: Tools

    def TrainMatchModel(
        self, request: pb.TrainMatchModelRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue a training."""
        now = self.tools.match_models()()
        merge = request.merge_weight if request.HasField("merge_weight") else now.merge_weight
        review = request.review_weight if request.HasField("review_weight") else now.review_weight
        if review > merge:
            what = FieldViolation("review_weight", "must be at most merge_weight")
            raise Invalid("what merges needs at least as much as what is asked about", violations=[what])
        version = f"{datetime.now(UTC):%Y%m%d}-{uuid.uuid4().hex[:8]}"
        args = {"version": version, "merge": merge, "review": review, "profile_limit": request.profile_limit}
        caller = current_call().caller
        owner, progress = Owner(caller.subject, caller.department), pb.TrainingProgress(match_model=_name(version))
        return self.tools.jobs.start(TRAIN, args, progress, owner, request.request_id)

    def GetMatchModel(self, request: pb.GetMatchModelRequest, context: grpc.ServicerContext) -> pb.MatchModel:
        """Return a model with its report."""
        models, wanted = self.tools.match_models(), id_of(request.name)
        use = models.use()
        return self._model_message(models, models.version_of(use) if wanted == IN_USE else wanted, use)

    def ListMatchModels(
        self, request: pb.ListMatchModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListMatchModelsResponse:
        """List models without their reports."""
        models = self.tools.match_models()
        use, shelf = models.use(), self.tools.store.match_models
        found, token = page_of(shelf, {}, request.page_size, request.page_token, "matchModels")
        reply = pb.ListMatchModelsResponse(next_page_token=token)
        for item in found:
            reply.match_models.append(head_message(item, in_use=item.id == models.version_of(use)))
        for kind, version, time, by, reason in () if request.page_token else use.switches:
            made = reply.switches.add(
                match_model=_name(version), rolled_back=kind == ROLL_BACK, by=by, reason=reason
            )  # fmt: skip
            made.time.FromDatetime(datetime.fromisoformat(time))
        return reply

    def ActivateMatchModel(self, request: pb.ActivateMatchModelRequest, context: grpc.ServicerContext) -> pb.MatchModel:
        """Use a model."""
        models, version = self.tools.match_models(), id_of(request.name)
        use = models.activate(version, current_call().caller.subject, request.reason)
        return self._model_message(models, version, use)

    def RollbackMatchModel(self, request: pb.RollbackMatchModelRequest, context: grpc.ServicerContext) -> pb.MatchModel:
        """Take a model out of use."""
        models = self.tools.match_models()
        use = models.roll_back(id_of(request.name), current_call().caller.subject, request.reason)
        return self._model_message(models, models.version_of(use), use)

    def _model_message(self, models: Models, version: str, use: ModelUse) -> pb.MatchModel:
        in_use = models.version_of(use) == version
        if version == default_model().version:
            made = shipped_message(default_model(), in_use=in_use)
        else:
            stored = models.get(version)
            made = model_message(stored, models.base_of(stored), in_use=in_use)
        if in_use:
            made.crowd_weight = models.now().crowd_weight
        return made


def _name(version: str) -> str:
    return f"matchModels/{version}"
