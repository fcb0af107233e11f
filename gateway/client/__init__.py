"""The Python client of Kehu: tokens fetched and renewed, problems raised, operations waited for, pages walked."""

from gateway.client.client import KehuClient
from gateway.client.errors import NO_ANSWER, Json, KehuProblem, OperationFailed, entries
from gateway.client.signing import ClientCredentials, SignIn, fetch_token

__all__ = [
    "NO_ANSWER",
    "ClientCredentials",
    "Json",
    "KehuClient",
    "KehuProblem",
    "OperationFailed",
    "SignIn",
    "entries",
    "fetch_token",
]
