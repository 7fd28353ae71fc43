//! `refwatch check --online`: checks the identity of each target and its permissions on the watched stores.
//!
//! It sends one request per operation, kind and store, and one request per target to STS. There are no retries. The rate is the
//! target's quota, and the deadline of a request is the target's `poll.timeout`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;

use super::super::table;
use crate::clock::Clock;
use crate::config::{Config, TargetConfig};
use crate::core::failure::{FailureReason, Operation, RequestFailure};
use crate::core::job::{JobId, JobKey, StoreId};
use crate::core::kind::JobKind;
use crate::core::sanitize::Sanitized;
use crate::healthomics::{AwsFactory, CallerIdentity, ServiceFactory as _, TargetService};

/// Requested in a store without known jobs. AWS reports a missing permission even for a job that does not exist.
const NO_JOB: &str = "0000000000";

const LAYOUT: table::Layout<4> =
    table::Layout { header: ["TARGET", "STORE", "OPERATION", "RESULT"], cut: None, dropped: &[], below: 1, status: 3 };

#[derive(Clone, Debug, Default)]
struct StoreToCheck {
    /// A job of the watch list.
    job: Option<JobId>,
    /// True for a `[[store]]`: only listings discover its jobs.
    needs_listing: bool,
}

/// The result for a target.
#[derive(Serialize)]
pub(super) struct TargetReport {
    target: String,
    /// "TARGET, REGION: ARN, account ACCOUNT", or why the identity is unknown.
    identity: String,
    /// Whether a client for the target can be built.
    is_usable: bool,
    permissions: Vec<PermissionReport>,
}

#[derive(Clone, Serialize)]
struct PermissionReport {
    kind: &'static str,
    store_id: String,
    operation: &'static str,
    /// `None` if the request failed for another reason than a missing permission.
    allowed: Option<bool>,
    /// Whether the watch list depends on the operation.
    needed: bool,
    /// "allowed", or the failure.
    result: String,
}

impl TargetReport {
    /// The needed operations that are denied.
    pub(super) fn denied(&self) -> usize {
        self.count_needed(Some(false))
    }

    /// The needed operations whose request failed for another reason, or 1 for an unusable target.
    pub(super) fn failed(&self) -> usize {
        self.count_needed(None) + usize::from(!self.is_usable)
    }

    fn count_needed(&self, allowed: Option<bool>) -> usize {
        let counted = |permission: &&PermissionReport| permission.needed && permission.allowed == allowed;
        self.permissions.iter().filter(counted).count()
    }
}

/// A line for each target and a table of permissions.
pub(super) fn text(targets: &[TargetReport]) -> String {
    let identities: Vec<String> = targets.iter().map(|target| Sanitized(&target.identity).to_string()).collect();
    let identities = identities.join("\n") + "\n";
    let permissions = targets.iter().flat_map(|target| target.permissions.iter().map(move |found| (target, found)));
    let rows = permissions.map(|(target, PermissionReport { store_id, operation, result, .. })| table::Row {
        cells: [target.target.clone(), store_id.clone(), (*operation).to_owned(), Sanitized(result).to_string()],
        note: None,
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return identities;
    }
    // The advice is at the end of a result, so no column is cut or dropped.
    format!("{identities}\n{}", table::lines(&LAYOUT, &rows, usize::MAX, false).text())
}

pub(super) async fn run(config: &Config) -> Vec<TargetReport> {
    let clock = Clock::system();
    let in_use = config.watch_list.targets();
    // The implicit target is checked only if it is used or is the only target.
    let is_checked =
        |name: &Arc<str>| in_use.contains(name) || **name != *TargetConfig::DEFAULT || config.targets.len() == 1;
    let mut reports = Vec::new();
    for (name, target) in config.targets.iter().filter(|(name, _)| is_checked(name)) {
        reports.push(match AwsFactory::new(clock).build(target).await {
            Ok(service) => {
                let interval = Duration::from_secs_f64(1.0 / target.quota.configured_rate());
                check_target(name, &*service, stores_to_check(config, name), interval).await
            }
            Err(error) => {
                let identity = format!("{name}: {error}");
                TargetReport { target: name.to_string(), identity, is_usable: false, permissions: Vec::new() }
            }
        });
    }
    reports
}

/// The stores of the watch list on a target.
fn stores_to_check(config: &Config, target: &Arc<str>) -> BTreeMap<(StoreId, JobKind), StoreToCheck> {
    let mut stores: BTreeMap<(StoreId, JobKind), StoreToCheck> = BTreeMap::new();
    for id in config.watch_list.jobs.keys().filter(|id| id.target == *target) {
        let store = stores.entry((id.key.store.clone(), id.key.kind)).or_default();
        store.job.get_or_insert_with(|| id.key.job.clone());
    }
    for id in config.watch_list.stores.keys().filter(|id| id.target == *target) {
        stores.entry((id.store.clone(), id.kind)).or_default().needs_listing = true;
    }
    stores
}

async fn check_target(
    name: &str,
    service: &dyn TargetService,
    stores: BTreeMap<(StoreId, JobKind), StoreToCheck>,
    interval: Duration,
) -> TargetReport {
    let checks = (0..).zip(stores).map(async |(nth, ((id, kind), store))| {
        Clock::system().sleep(interval * nth).await;
        check_store(service, &id, kind, store).await
    });
    let (identity, permissions) = tokio::join!(service.caller_identity(), join_all(checks));
    let identity = match identity {
        Ok(Some(CallerIdentity { arn, account })) => format!("{arn}, account {account}"),
        Ok(None) => "identity unknown: the endpoint is not AWS's: set AWS_ENDPOINT_URL_STS to query STS".to_owned(),
        Err(failure) => format!("identity unknown: {failure}"),
    };
    let identity = format!("{name}, {}: {identity}", service.aws_region());
    TargetReport { target: name.to_owned(), identity, is_usable: true, permissions: permissions.concat() }
}

/// Lists first: the listing may contain a job to request.
async fn check_store(
    service: &dyn TargetService,
    id: &StoreId,
    kind: JobKind,
    store: StoreToCheck,
) -> Vec<PermissionReport> {
    let listed = service.list_jobs(kind, id, None, None).await;
    let listed_job = listed.as_ref().ok().and_then(|page| page.jobs.first()).map(|job| job.job.clone());
    let known = store.job.or(listed_job);
    let Some(job) = known.clone().or_else(|| NO_JOB.parse().ok()) else { unreachable!("NO_JOB is an id") };
    let got = match service.get_job(&JobKey { kind, store: id.clone(), job }).await {
        // This job need not exist.
        Err(failure) if failure.reason == FailureReason::NotFound && known.is_none() && listed.is_ok() => None,
        got => got.err(),
    };
    let report = |operation: Operation, failure: Option<RequestFailure>, needed| PermissionReport {
        kind: kind.as_str(),
        store_id: id.to_string(),
        operation: operation.as_str(),
        allowed: match &failure {
            None => Some(true),
            Some(failure) => (failure.reason == FailureReason::AccessDenied).then_some(false),
        },
        needed,
        result: failure.map_or_else(|| "allowed".to_owned(), |failure| result(&failure, needed)),
    };
    vec![report(Operation::Get(kind), got, true), report(Operation::List(kind), listed.err(), store.needs_listing)]
}

fn result(failure: &RequestFailure, needed: bool) -> String {
    let is_optional = !needed && failure.reason == FailureReason::AccessDenied;
    let note = if is_optional { " (not needed: its jobs are polled one by one instead)" } else { "" };
    format!("{}: {failure}{note}", failure.reason.info().summary)
}
