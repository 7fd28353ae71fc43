//! What one writes first: a task for each job, which asks, waits and asks again, 32 requests at once. The SDK is as it comes, but for
//! its retries, which are off as refwatch has them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_omics::Client;
use aws_sdk_omics::config::Credentials;
use refwatch::clock::Clock;
use refwatch::healthomics::WireRules;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Failure;
use super::contestant::{CREDENTIALS, REGION};

/// As many as boto3 has threads.
pub(super) const AT_ONCE: usize = 32;

pub(super) async fn run(endpoint: &str, jobs: &Path, interval: Duration) -> Result<(), Failure> {
    let sdk = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(Region::new(REGION))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new(CREDENTIALS, CREDENTIALS, None, None, CREDENTIALS))
        .retry_config(RetryConfig::disabled())
        .load()
        .await;
    let client = Client::from_conf(aws_sdk_omics::config::Builder::from(&sdk).interceptor(WireRules).build());
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for job in std::fs::read_to_string(jobs)?.lines() {
        let (store, id) = job.split_once('/').ok_or("a job is written STORE/JOB")?;
        let poll = client.get_reference_import_job().reference_store_id(store).id(id);
        tasks.spawn(watch(poll, Arc::clone(&at_once), interval));
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// An error is left to the next round.
async fn watch(
    poll: aws_sdk_omics::operation::get_reference_import_job::builders::GetReferenceImportJobFluentBuilder,
    at_once: Arc<Semaphore>,
    interval: Duration,
) {
    let clock = Clock::system();
    while let Ok(turn) = at_once.acquire().await {
        drop(poll.clone().send().await);
        drop(turn);
        clock.sleep(interval).await;
    }
}
