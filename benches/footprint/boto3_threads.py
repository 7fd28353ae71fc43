"""Asks for every job of a list with boto3, 32 threads at once, waits and asks again, until it is ended.

Usage: boto3_threads.py ENDPOINT JOBS INTERVAL_SECONDS

JOBS is a file with a line STORE/JOB for each job. Retries are off, as refwatch has them.
"""

import sys
import threading
import time

import boto3
from botocore.config import Config

THREADS = 32


def watch(client, jobs, interval):
    while True:
        begun = time.monotonic()
        for store, job in jobs:
            client.get_reference_import_job(referenceStoreId=store, id=job)
        time.sleep(max(0, begun + interval - time.monotonic()))


def main():
    endpoint, path, interval = sys.argv[1:]
    with open(path) as lines:
        jobs = [line.strip().split("/") for line in lines]
    client = boto3.client(
        "omics",
        endpoint_url=endpoint,
        region_name="us-west-2",
        aws_access_key_id="simulated",
        aws_secret_access_key="simulated",
        # The endpoint as it is: without the host prefix `control-storage-`.
        config=Config(
            inject_host_prefix=False, max_pool_connections=THREADS, retries={"mode": "standard", "total_max_attempts": 1}
        ),
    )
    for nth in range(min(THREADS, len(jobs))):
        threading.Thread(target=watch, args=(client, jobs[nth::THREADS], float(interval))).start()


main()
