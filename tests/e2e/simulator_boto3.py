"""Checks the simulator with boto3, which validates responses against AWS's model.

Usage: simulator_boto3.py ENDPOINT REFWATCH

ENDPOINT is a `refwatch simulate` that was just started with at least eight short jobs (--mean-seconds 5), a high quota
(--quota 50) and no faults. REFWATCH is the binary; it also starts one simulator per fault. Exits with 1 at the first
mismatch.
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
SOURCE_STATUSES = {"NOT_STARTED", "IN_PROGRESS", "FINISHED", "FAILED"}
ENDS = {"CANCELLED", "FAILED", "COMPLETED", "COMPLETED_WITH_FAILURES"}

# Seconds until every job has ended, on a slow machine.
DEADLINE = 120

# Fault, exception and HTTP status of each error of both operations.
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


def timelines_of(endpoint):
    with urllib.request.urlopen(endpoint + "/-/jobs") as response:
        return json.load(response)


def by_end(timelines):
    """One job for each terminal status."""
    return {job["timeline"][-1]["status"]: ids_of(job) for job in timelines}


def ids_of(job):
    return {"referenceStoreId": job["reference_store_id"], "id": job["id"]}


def check_waiter(client, jobs):
    """AWS's waiter succeeds on COMPLETED and fails on every other terminal status."""
    waiter = client.get_waiter("reference_import_job_completed")
    often = {"Delay": 1, "MaxAttempts": DEADLINE}
    waiter.wait(**jobs["COMPLETED"], WaiterConfig=often)
    for end in sorted(ENDS - {"COMPLETED"}):
        error = raised(WaiterError, waiter.wait, **jobs[end], WaiterConfig=often)
        check(error.last_response["status"] == end, "the waiter ended on", error.last_response)


def check_job(client, job):
    """Checks a job against the model and its timeline. Returns whether it has ended."""
    shape = client.meta.service_model.operation_model("GetReferenceImportJob").output_shape
    response = client.get_reference_import_job(**ids_of(job))
    conforms(response, shape)
    created, end = job["timeline"][0], job["timeline"][-1]
    check(response["creationTime"].isoformat() == iso(created["at"]), response, "does not match", job)
    check(response["status"] in {step["status"] for step in job["timeline"]}, response, "does not match", job)
    ended = response["status"] == end["status"]
    if ended:
        check(response["completionTime"].isoformat() == iso(end["at"]), response, "does not match", job)
    return ended


def iso(timestamp):
    return datetime.datetime.fromisoformat(timestamp.replace("Z", "+00:00")).isoformat()


def check_list(client, timelines):
    """The paginator returns each job once, in pages of the requested size, and filters."""
    shape = client.meta.service_model.operation_model("ListReferenceImportJobs").output_shape
    paginator = client.get_paginator("list_reference_import_jobs")
    store = timelines[0]["reference_store_id"]

    def listed(**arguments):
        pages = list(paginator.paginate(referenceStoreId=store, **arguments))
        for page in pages:
            conforms(page, shape)
        jobs = [job["id"] for page in pages for job in page["importJobs"]]
        return [len(page["importJobs"]) for page in pages], sorted(jobs)

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


def check_rejections(client, job):
    """Invalid requests are rejected by the service, or by boto3's own validation."""
    store, job = job["referenceStoreId"], job["id"]
    validation, not_found = client.exceptions.ValidationException, client.exceptions.ResourceNotFoundException
    get, listing = client.get_reference_import_job, client.list_reference_import_jobs
    raised(validation, get, referenceStoreId=store, id="not-a-number")
    raised(validation, get, referenceStoreId="not-a-number", id=job)
    raised(validation, get, referenceStoreId=store, id="1" * 37)
    raised(validation, listing, referenceStoreId=store, maxResults=101)
    raised(validation, listing, referenceStoreId=store, nextToken="not one of ours")
    raised(validation, listing, referenceStoreId=store, filter={"status": "DONE"})
    raised(not_found, get, referenceStoreId=store, id="1" * 10)
    raised(not_found, listing, referenceStoreId="1" * 10)
    raised(ParamValidationError, get, referenceStoreId=store, id="123")
    raised(ParamValidationError, listing, referenceStoreId=store, maxResults=0)


def check_errors(refwatch):
    """Each error of the model is raised as its own class, by both operations, with its HTTP status and a request id."""
    for fault, name, status in ERRORS:
        command = [refwatch, "simulate", "--listen", "127.0.0.1:0", "--fault", f"{fault}=1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as simulator:
            try:
                endpoint = re.search(r"http://[0-9.:]+", simulator.stdout.readline()).group()
                client = client_of(endpoint, attempts=1)
                error = getattr(client.exceptions, name)
                ids = {"referenceStoreId": "1" * 10, "id": "1" * 10}
                for caught in (
                    raised(error, client.get_reference_import_job, **ids),
                    raised(error, client.list_reference_import_jobs, referenceStoreId=ids["referenceStoreId"]),
                ):
                    metadata = caught.response["ResponseMetadata"]
                    check(metadata["HTTPStatusCode"] == status and metadata["RequestId"], name, metadata)
                    check(caught.response["Error"]["Message"], name, "has no message")
            finally:
                simulator.send_signal(signal.SIGTERM)
            check(simulator.wait(timeout=DEADLINE) == 0, "the simulator ended", simulator.returncode)


def check_quota(endpoint, timelines):
    """A client without retries is throttled."""
    client = client_of(endpoint, attempts=1)
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            client.get_reference_import_job(**ids_of(timelines[0]))
        except client.exceptions.ThrottlingException:
            return
        except ClientError as other:
            raise AssertionError(f"expected throttling: {other}") from other
    raise AssertionError("the quota was never reached")


def main():
    endpoint, refwatch = sys.argv[1:]
    timelines = timelines_of(endpoint)
    check({job["timeline"][-1]["status"] for job in timelines} == ENDS, "not every terminal status occurs:", timelines)
    check({step["status"] for job in timelines for step in job["timeline"]} == JOB_STATUSES, "not every status occurs")
    client = client_of(endpoint)
    shape = client.meta.service_model.shape_for("ReferenceImportJobItemStatus")
    check(set(shape.enum) == SOURCE_STATUSES, "the model has other source statuses:", shape.enum)
    check(not all([check_job(client, job) for job in timelines]), "every job has ended already")
    check_waiter(client, by_end(timelines))
    deadline = time.monotonic() + DEADLINE
    while not all([check_job(client, job) for job in timelines]):
        check(time.monotonic() < deadline, "not every job ends")
    check_list(client, timelines)
    check_rejections(client, ids_of(timelines[0]))
    check_quota(endpoint, timelines)
    check_errors(refwatch)
    print("boto3", boto3.__version__, "reports no error")


if __name__ == "__main__":
    main()
