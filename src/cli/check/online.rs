//! `refwatch check --online`: checks the identity of each target and its permissions on the watched stores.
//!
//! It sends one request per operation, kind and store, and one request per target to STS. There are no retries. The rate is the
//! target's quota, and the deadline of a request is the target's `poll.timeout`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::task::JoinSet;

use super::super::table;
use crate::clock::Clock;
use crate::config::{Config, TargetConfig};
use crate::core::failure::{FailureReason, Operation, RequestFailure};
use crate::core::job::{JobId, JobKey, StoreId};
use crate::core::kind::JobKind;
use crate::core::sanitize::Sanitized;
use crate::healthomics::{AwsFactory, CallerIdentity, ServiceFactory, TargetError, TargetService};

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

struct Permission {
    operation: Operation,
    outcome: Result<(), RequestFailure>,
    /// True if the watch list depends on the operation.
    is_needed: bool,
}

struct CheckedTarget {
    aws_region: Arc<str>,
    identity: Result<Option<CallerIdentity>, RequestFailure>,
    stores: BTreeMap<(StoreId, JobKind), [Permission; 2]>,
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

#[derive(Serialize)]
struct PermissionReport {
    kind: &'static str,
    store_id: String,
    operation: &'static str,
    allowed: bool,
    /// Whether the watch list depends on the operation.
    needed: bool,
    /// "allowed", or the failure.
    result: String,
}

impl TargetReport {
    /// The operations that are needed and fail, or 1 for an unusable target.
    pub(super) fn missing(&self) -> usize {
        let missing = self.permissions.iter().filter(|permission| permission.needed && !permission.allowed).count();
        missing + usize::from(!self.is_usable)
    }

    pub(super) fn is_permitted(&self) -> bool {
        self.missing() == 0
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
        let checked = check_target(target, stores_to_check(config, name), clock).await;
        let identity = format!("{name}{}", identity(&checked));
        let is_usable = checked.is_ok();
        let stores = checked.map(|checked| checked.stores).unwrap_or_default();
        let permissions = stores.into_iter().flat_map(|((store, kind), permissions)| {
            permissions.map(|permission| PermissionReport {
                kind: kind.as_str(),
                store_id: store.to_string(),
                operation: permission.operation.as_str(),
                allowed: permission.outcome.is_ok(),
                needed: permission.is_needed,
                result: permission.text(),
            })
        });
        let permissions = permissions.collect();
        reports.push(TargetReport { target: name.to_string(), identity, is_usable, permissions });
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
    target: &TargetConfig,
    stores: BTreeMap<(StoreId, JobKind), StoreToCheck>,
    clock: Clock,
) -> Result<CheckedTarget, TargetError> {
    let service = AwsFactory::new(clock).build(target).await?;
    let mut checks = JoinSet::new();
    let interval = std::time::Duration::from_secs_f64(1.0 / target.quota.configured_rate());
    for (nth, (id, store)) in (0..).zip(stores) {
        let service = Arc::clone(&service);
        checks.spawn(async move {
            clock.sleep(interval * nth).await;
            let permissions = check_store(&*service, &id, store).await;
            (id, permissions)
        });
    }
    let identity = service.caller_identity().await;
    let stores = checks.join_all().await.into_iter().collect();
    Ok(CheckedTarget { aws_region: Arc::clone(service.aws_region()), identity, stores })
}

/// Lists first: the listing may contain a job to request.
async fn check_store(
    service: &dyn TargetService,
    (id, kind): &(StoreId, JobKind),
    store: StoreToCheck,
) -> [Permission; 2] {
    let kind = *kind;
    let listed = service.list_jobs(kind, id, None, None).await;
    let listed_job = listed.as_ref().ok().and_then(|page| page.jobs.first()).map(|job| job.job.clone());
    let known = store.job.or(listed_job);
    let Some(job) = known.clone().or_else(|| NO_JOB.parse().ok()) else { unreachable!("NO_JOB is an id") };
    let got = service.get_job(&JobKey { kind, store: id.clone(), job }).await.map(drop);
    let got = match got {
        // This job need not exist.
        Err(failure) if failure.reason == FailureReason::NotFound && known.is_none() && listed.is_ok() => Ok(()),
        got => got,
    };
    [
        Permission { operation: Operation::Get(kind), outcome: got, is_needed: true },
        Permission { operation: Operation::List(kind), outcome: listed.map(drop), is_needed: store.needs_listing },
    ]
}

/// The identity of a target, or why it is unknown.
fn identity(checked: &Result<CheckedTarget, TargetError>) -> String {
    match checked {
        Err(error) => format!(": {error}"),
        Ok(CheckedTarget { aws_region, identity, .. }) => match identity {
            Ok(Some(CallerIdentity { arn, account })) => format!(", {aws_region}: {arn}, account {account}"),
            Ok(None) => format!(
                ", {aws_region}: identity unknown: the endpoint is not AWS's: set AWS_ENDPOINT_URL_STS to query STS"
            ),
            Err(failure) => format!(", {aws_region}: identity unknown: {failure}"),
        },
    }
}

impl Permission {
    fn text(&self) -> String {
        let failure = match &self.outcome {
            Ok(()) => return "allowed".to_owned(),
            Err(failure) => failure,
        };
        let is_optional = !self.is_needed && failure.reason == FailureReason::AccessDenied;
        let note = if is_optional { " (not needed: its jobs are polled one by one instead)" } else { "" };
        format!("{}: {failure}{note}", failure.reason.class().summary)
    }
}
