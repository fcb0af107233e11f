"""Work that outlives a request: leased, resumable, with progress, shown as google.longrunning.Operation (AIP-151).

A job is a document: a worker takes it by compare-and-set on its lease, renews the lease from a thread,
saves a checkpoint after each step, and another worker goes on from there when the first one dies.
"""

from services.chassis.jobs.operations import Jobs, OperationNotFound, Owner, to_operation
from services.chassis.jobs.stores import MemoryOperations, MongoOperations, OperationStore
from services.chassis.jobs.worker import ATTEMPTS, LEASE, Handler, Job, LeaseLost, Paused, Worker

__all__ = [
    "ATTEMPTS",
    "LEASE",
    "Handler",
    "Job",
    "Jobs",
    "LeaseLost",
    "MemoryOperations",
    "MongoOperations",
    "OperationNotFound",
    "OperationStore",
    "Owner",
    "Paused",
    "Worker",
    "to_operation",
]
