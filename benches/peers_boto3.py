"""Waits for each job of a simulator with boto3's waiter, one thread per job, and prints one JSON line per end.

Usage: peers_boto3.py ENDPOINT waiter|tuned

`waiter` is the example in boto3's documentation. `tuned` polls every 5 s without a limit on attempts and uses the
client's adaptive rate limit.
"""

import concurrent.futures
import json
import sys
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import WaiterError

ENDS = {"CANCELLED", "FAILED", "COMPLETED", "COMPLETED_WITH_FAILURES"}


def jobs_of(endpoint):
    with urllib.request.urlopen(endpoint + "/-/jobs") as response:
        return [{"referenceStoreId": job["store_id"], "id": job["id"]} for job in json.load(response)]


def wait(client, waiter, job):
    try:
        client.get_waiter("reference_import_job_completed").wait(**job, WaiterConfig=waiter)
        status = "COMPLETED"
    except WaiterError as error:
        # The waiter fails on every other end. Without a status it stopped waiting, and the end is missed.
        status = error.last_response.get("status")
    return {"job_id": job["id"], "to_status": status}


def main():
    endpoint, mode = sys.argv[1:]
    jobs = jobs_of(endpoint)
    config, waiter = {
        "waiter": (Config(), {}),
        "tuned": (
            Config(retries={"mode": "adaptive", "total_max_attempts": 10}, max_pool_connections=len(jobs)),
            {"Delay": 5, "MaxAttempts": 10_000},
        ),
    }[mode]
    client = boto3.client(
        "omics",
        endpoint_url=endpoint,
        region_name="us-west-2",
        aws_access_key_id="simulated",
        aws_secret_access_key="simulated",
        # No host prefix `control-storage-`.
        config=config.merge(Config(inject_host_prefix=False)),
    )
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as threads:
        waits = [threads.submit(wait, client, waiter, job) for job in jobs]
        # Only this thread prints, so lines do not mix.
        for ended in concurrent.futures.as_completed(waits):
            if ended.result()["to_status"] in ENDS:
                print(json.dumps(ended.result()), flush=True)


main()
