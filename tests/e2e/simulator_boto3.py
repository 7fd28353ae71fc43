"""Checks the simulator with boto3, which validates responses against AWS's model.

Usage: simulator_boto3.py KIND ENDPOINT REFWATCH

KIND is a kind of jobs. ENDPOINT is a `refwatch simulate --kind KIND` that was just started with at least eight short jobs
(--mean-seconds 5), a high quota (--quota 50) and no faults. REFWATCH is the binary; it also starts one simulator per
fault. Exits with 1 at the first mismatch.
"""

import datetime
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError, WaiterError

JOB_STATUSES = {
    "SUBMITTED", "IN_PROGRESS", "CANCELLING", "CANCELLED", "FAILED", "COMPLETED", "COMPLETED_WITH_FAILURES",
}
ITEM_STATUSES = {"NOT_STARTED", "IN_PROGRESS", "FINISHED", "FAILED"}
ENDS = {"CANCELLED", "FAILED", "COMPLETED", "COMPLETED_WITH_FAILURES"}

# The names of each kind in boto3: operations, the store's id, the list of jobs, the list of items and its model.
KINDS = {
    "reference_import": ("reference_import_job", "referenceStoreId", "importJobs", "ReferenceImportJobItemStatus"),
    "read_set_import": ("read_set_import_job", "sequenceStoreId", "importJobs", "ReadSetImportJobItemStatus"),
    "read_set_export": ("read_set_export_job", "sequenceStoreId", "exportJobs", "ReadSetExportJobItemStatus"),
    "read_set_activation": (
        "read_set_activation_job", "sequenceStoreId", "activationJobs", "ReadSetActivationJobItemStatus",
    ),
}

# Seconds until every job has ended, on a slow machine.
DEADLINE = 120

# Fault, exception and HTTP status of each error of all operations.
ERRORS = [
    ("throttling", "ThrottlingException", 429),
    ("internal", "InternalServerException", 500),
    ("request_timeout", "RequestTimeoutException", 408),
    ("access_denied", "AccessDeniedException", 403),
    ("not_found", "ResourceNotFoundException", 404),
    ("validation", "ValidationException", 400),
]


def client_of(endpoint, attempts=10):
    """A client without the host prefix `control-storage-`."""
    return boto3.client(
        "omics",
        endpoint_url=endpoint,
        region_name="us-west-2",
        aws_access_key_id="simulated",
        aws_secret_access_key="simulated",
        config=Config(inject_host_prefix=False, retries={"mode": "standard", "total_max_attempts": attempts}),
    )


def check(condition, *message):
    if not condition:
        raise AssertionError(" ".join(str(part) for part in message))


def raised(error, call, *args, **kwargs):
    """Returns the `error` that a call must raise."""
    try:
        response = call(*args, **kwargs)
    except error as caught:
        return caught
    raise AssertionError(f"{error.__name__} was not raised; the response is {response}")


def conforms(value, shape, path="$"):
    """Checks a response against boto3's service model: types, required members, bounds, patterns."""
    metadata = shape.metadata
    if shape.type_name == "structure":
        extra = set(value) - set(shape.members) - {"ResponseMetadata"}
        check(not extra, path, "has members that the model lacks:", extra)
        missing = set(shape.required_members) - set(value)
        check(not missing, path, "lacks members that the model requires:", missing)
        for name, member in shape.members.items():
            if name in value:
                conforms(value[name], member, f"{path}.{name}")
    elif shape.type_name == "list":
        for nth, member in enumerate(value):
            conforms(member, shape.member, f"{path}[{nth}]")
    elif shape.type_name == "map":
        for key, member in value.items():
            conforms(key, shape.key, f"{path} key")
            conforms(member, shape.value, f"{path}.{key}")
    elif shape.type_name == "timestamp":
        check(isinstance(value, datetime.datetime) and value.tzinfo, path, "is no timestamp:", value)
    elif shape.type_name == "string":
        check(isinstance(value, str), path, "is no string:", value)
        check(metadata.get("min", 0) <= len(value) <= metadata.get("max", 2**20), path, "has a wrong length:", value)
        check(not shape.enum or value in shape.enum, path, "is none of", shape.enum, value)
        pattern = metadata.get("pattern", "")
        # Python's re has no \p{…}; the patterns that use it allow every printable character.
        pattern = r"[^\x00-\x1f\x7f]+" if r"\p" in pattern else pattern or ".*"
        check(re.fullmatch(pattern, value), path, "does not match", pattern, value)
    else:
        raise AssertionError(f"{path} is of a type that this test does not know: {shape.type_name}")


class Kind:
    """The operations of one kind."""

    def __init__(self, name):
        self.operation, self.store_member, self.list_member, self.item_status = KINDS[name]

    def ids_of(self, job):
        return {self.store_member: job["store_id"], "id": job["id"]}

    def get(self, client):
        return getattr(client, "get_" + self.operation)

    def list(self, client):
        return getattr(client, f"list_{self.operation}s")

    def shape(self, client, method):
        operation = client.meta.method_to_api_mapping[method]
        return client.meta.service_model.operation_model(operation).output_shape


def timelines_of(endpoint):
    with urllib.request.urlopen(endpoint + "/-/jobs") as response:
        return json.load(response)


def check_waiter(client, kind, timelines):
    """AWS's waiter succeeds on COMPLETED and fails on every other terminal status."""
    jobs = {job["timeline"][-1]["status"]: kind.ids_of(job) for job in timelines}
    waiter = client.get_waiter(kind.operation + "_completed")
    often = {"Delay": 1, "MaxAttempts": DEADLINE}
    waiter.wait(**jobs["COMPLETED"], WaiterConfig=often)
    for end in sorted(ENDS - {"COMPLETED"}):
        error = raised(WaiterError, waiter.wait, **jobs[end], WaiterConfig=often)
        check(error.last_response["status"] == end, "the waiter ended on", error.last_response)


def check_job(client, kind, job):
    """Checks a job against the model and its timeline. Returns whether it has ended."""
    response = kind.get(client)(**kind.ids_of(job))
    conforms(response, kind.shape(client, "get_" + kind.operation))
    created, end = job["timeline"][0], job["timeline"][-1]
    check(response["creationTime"].isoformat() == iso(created["at"]), response, "does not match", job)
    check(response["status"] in {step["status"] for step in job["timeline"]}, response, "does not match", job)
    ended = response["status"] == end["status"]
    if ended:
        check(response["completionTime"].isoformat() == iso(end["at"]), response, "does not match", job)
    return ended


def iso(timestamp):
    return datetime.datetime.fromisoformat(timestamp.replace("Z", "+00:00")).isoformat()


def check_list(client, kind, timelines):
    """The paginator returns each job once, in pages of the requested size, and filters."""
    method = f"list_{kind.operation}s"
    shape = kind.shape(client, method)
    paginator = client.get_paginator(method)
    store = {kind.store_member: timelines[0]["store_id"]}

    def listed(**arguments):
        pages = list(paginator.paginate(**store, **arguments))
        for page in pages:
            conforms(page, shape)
        jobs = [job["id"] for page in pages for job in page[kind.list_member]]
        return [len(page[kind.list_member]) for page in pages], sorted(jobs)

    every = sorted(job["id"] for job in timelines)
    sizes, jobs = listed(PaginationConfig={"PageSize": 3})
    check(jobs == every and all(size == 3 for size in sizes[:-1]) and len(sizes) > 2, "pages of 3:", sizes, jobs)
    check(listed() == ([len(timelines)], every), "without a page size")
    for end in ENDS:
        expected = sorted(job["id"] for job in timelines if job["timeline"][-1]["status"] == end)
        check(listed(filter={"status": end}, PaginationConfig={"PageSize": 2})[1] == expected, "only", end)
    hour = datetime.timedelta(hours=1)
    now = datetime.datetime.now(datetime.timezone.utc)
    check(listed(filter={"createdAfter": now - hour, "createdBefore": now + hour})[1] == every, "created around now")
    check(listed(filter={"createdAfter": now + hour})[1] == [], "created in the future")
    check(listed(filter={"createdBefore": now - hour})[1] == [], "created long ago")


def check_rejections(client, kind, job):
    """Invalid requests are rejected by the service, or by boto3's own validation."""
    validation, not_found = client.exceptions.ValidationException, client.exceptions.ResourceNotFoundException
    get, listing, store = kind.get(client), kind.list(client), {kind.store_member: job[kind.store_member]}
    raised(validation, get, **store, id="not-a-number")
    raised(validation, get, **{kind.store_member: "not-a-number"}, id=job["id"])
    raised(validation, get, **store, id="1" * 37)
    raised(validation, listing, **store, maxResults=101)
    raised(validation, listing, **store, nextToken="not one of ours")
    raised(validation, listing, **store, filter={"status": "DONE"})
    raised(not_found, get, **store, id="1" * 10)
    raised(not_found, listing, **{kind.store_member: "1" * 10})
    raised(ParamValidationError, get, **store, id="123")
    raised(ParamValidationError, listing, **store, maxResults=0)


def check_errors(refwatch):
    """Each error of the model is raised as its own class, by all operations, with its HTTP status and a request id."""
    for fault, name, status in ERRORS:
        command = [refwatch, "simulate", "--listen", "127.0.0.1:0", "--fault", f"{fault}=1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as simulator:
            try:
                endpoint = re.search(r"http://[0-9.:]+", simulator.stdout.readline()).group()
                client = client_of(endpoint, attempts=1)
                error = getattr(client.exceptions, name)
                for kind in map(Kind, KINDS):
                    store = {kind.store_member: "1" * 10}
                    for caught in (
                        raised(error, kind.get(client), **store, id="1" * 10), raised(error, kind.list(client), **store),
                    ):
                        metadata = caught.response["ResponseMetadata"]
                        check(metadata["HTTPStatusCode"] == status and metadata["RequestId"], name, metadata)
                        check(caught.response["Error"]["Message"], name, "has no message")
            finally:
                simulator.send_signal(signal.SIGTERM)
            check(simulator.wait(timeout=DEADLINE) == 0, "the simulator ended", simulator.returncode)


def check_quota(endpoint, kind, timelines):
    """A client without retries is throttled."""
    client = client_of(endpoint, attempts=1)
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            kind.get(client)(**kind.ids_of(timelines[0]))
        except client.exceptions.ThrottlingException:
            return
        except ClientError as other:
            raise AssertionError(f"expected throttling: {other}") from other
    raise AssertionError("the quota was never reached")


def main():
    name, endpoint, refwatch = sys.argv[1:]
    kind, timelines = Kind(name), timelines_of(endpoint)
    check({job["kind"] for job in timelines} == {name}, "the jobs have other kinds:", timelines)
    check({job["timeline"][-1]["status"] for job in timelines} == ENDS, "not every terminal status occurs:", timelines)
    check({step["status"] for job in timelines for step in job["timeline"]} == JOB_STATUSES, "not every status occurs")
    client = client_of(endpoint)
    shape = client.meta.service_model.shape_for(kind.item_status)
    check(set(shape.enum) == ITEM_STATUSES, "the model has other item statuses:", shape.enum)
    check(not all([check_job(client, kind, job) for job in timelines]), "every job has ended already")
    check_waiter(client, kind, timelines)
    deadline = time.monotonic() + DEADLINE
    while not all([check_job(client, kind, job) for job in timelines]):
        check(time.monotonic() < deadline, "not every job ends")
    check_list(client, kind, timelines)
    check_rejections(client, kind, kind.ids_of(timelines[0]))
    check_quota(endpoint, kind, timelines)
    if name == "reference_import":
        check_errors(refwatch)
    print(f"boto3 {boto3.__version__} reports no error for {name}")


if __name__ == "__main__":
    main()
