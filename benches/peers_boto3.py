"""Waits for every job of a simulator with boto3's waiter, a thread each, and prints one JSON line an end.

Usage: peers_boto3.py ENDPOINT waiter|legacy|tuned

`waiter` is what boto3's documentation shows; `legacy` has the retries that were boto3's default before the standard ones; `tuned`
asks more often, never gives up and lets the client pace itself.
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
    with urllib.request.urlopen(endpoint + "/-/jobs") as answer:
        return [{"referenceStoreId": job["reference_store_id"], "id": job["id"]} for job in json.load(answer)]


def wait(client, waiter, job):
    try:
        client.get_waiter("reference_import_job_completed").wait(**job, WaiterConfig=waiter)
        status = "COMPLETED"
    except WaiterError as error:
        # The waiter fails on every other end, too; without one it has given up, and the end is missed.
        status = error.last_response.get("status")
    return {"import_job_id": job["id"], "to_status": status}


def main():
    endpoint, how = sys.argv[1:]
    jobs = jobs_of(endpoint)
    config, waiter = {
        "waiter": (Config(), {}),
        "legacy": (Config(retries={"mode": "legacy"}), {}),
        "tuned": (
            Config(retries={"mode": "adaptive", "total_max_attempts": 10}, max_pool_connections=len(jobs)),
            {"Delay": 5, "MaxAttempts": 10_000},
        ),
    }[how]
    client = boto3.client(
        "omics",
        endpoint_url=endpoint,
        region_name="us-west-2",
        aws_access_key_id="simulated",
        aws_secret_access_key="simulated",
        # The endpoint as it is: without the host prefix `control-storage-`.
        config=config.merge(Config(inject_host_prefix=False)),
    )
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as threads:
        waits = [threads.submit(wait, client, waiter, job) for job in jobs]
        # Here alone, so that no two lines run into one another.
        for ended in concurrent.futures.as_completed(waits):
            if ended.result()["to_status"] in ENDS:
                print(json.dumps(ended.result()), flush=True)


main()
