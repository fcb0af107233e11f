"""The Python client of Kehu: tokens fetched and renewed, problems raised, operations waited for, pages walked."""

from gateway.client.client import KehuClient
from gateway.client.errors import KehuProblem, OperationFailed

__all__ = ["KehuClient", "KehuProblem", "OperationFailed"]
