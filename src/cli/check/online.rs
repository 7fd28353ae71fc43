//! `refwatch check --online`: who the credentials of each target are, and what they may do in the stores that are watched.
//!
//! It sends one request of each operation for each store, and one to STS for each target, without retries. The target's quota
//! spaces the requests, and each has the target's deadline.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::super::exit::{Exit, Failure, print};
use super::super::table;
use crate::clock::Clock;
use crate::config::{Config, TargetConfig};
use crate::core::failure::{FailureReason, Operation, PollFailure};
use crate::core::job::{ImportJobId, JobKey, ReferenceStoreId};
use crate::core::sanitize::Sanitized;
use crate::healthomics::{Aws, CallerIdentity, Connect, HealthOmics, TargetError};

/// Requested in a store without known jobs. Missing permission is an error even for a job that does not exist.
const NO_JOB: &str = "0000000000";

/// What to request of one store.
#[derive(Clone, Debug, Default)]
struct Question {
    /// A job of the watch list.
    job: Option<ImportJobId>,
    /// Whether only listing finds its jobs.
    needs_listing: bool,
}

/// The result of one request. `needed` says whether the watch list depends on it.
struct Answer {
    operation: Operation,
    outcome: Result<(), PollFailure>,
    needed: bool,
}

struct Reached {
    aws_region: Arc<str>,
    identity: Result<Option<CallerIdentity>, PollFailure>,
    stores: BTreeMap<ReferenceStoreId, [Answer; 2]>,
}

pub(super) async fn run(config: &Config) -> Result<Exit, Failure> {
    let clock = Clock::system();
    let in_use = config.watch_list.targets();
    // The implicit target counts if it is used or is the only one.
    let counts =
        |name: &Arc<str>| in_use.contains(name) || **name != *TargetConfig::DEFAULT || config.targets.len() == 1;
    let (mut rows, mut exit) = (Vec::new(), Exit::Done);
    for (name, target) in config.targets.iter().filter(|(name, _)| counts(name)) {
        let reached = ask(target, questions(config, name), clock).await;
        print(format_args!("{}\n", Sanitized(&format!("{name}{}", identity(&reached)))))?;
        let Ok(Reached { stores, .. }) = reached else {
            exit = Exit::Failed;
            continue;
        };
        for (store, answers) in stores {
            for answer in answers {
                if answer.needed && answer.outcome.is_err() {
                    exit = Exit::Failed;
                }
                let result = Sanitized(&answer.text()).to_string();
                rows.push(([name.to_string(), store.to_string(), answer.operation.as_str().to_owned(), result], None));
            }
        }
    }
    if !rows.is_empty() {
        let table = table::lines(["TARGET", "REFERENCE STORE", "OPERATION", "ANSWER"], rows, usize::MAX);
        print(format_args!("\n{table}"))?;
    }
    Ok(exit)
}

/// The stores that the watch list names on a target.
fn questions(config: &Config, target: &Arc<str>) -> BTreeMap<ReferenceStoreId, Question> {
    let mut questions: BTreeMap<ReferenceStoreId, Question> = BTreeMap::new();
    for id in config.watch_list.jobs.keys().filter(|id| id.target == *target) {
        let question = questions.entry(id.key.store.clone()).or_default();
        question.job.get_or_insert_with(|| id.key.job.clone());
    }
    for id in config.watch_list.stores.keys().filter(|id| id.target == *target) {
        questions.entry(id.store.clone()).or_default().needs_listing = true;
    }
    questions
}

async fn ask(
    target: &TargetConfig,
    questions: BTreeMap<ReferenceStoreId, Question>,
    clock: Clock,
) -> Result<Reached, TargetError> {
    let service = Aws::new(clock).connect(target).await?;
    let mut asking = JoinSet::new();
    let spacing = std::time::Duration::from_secs_f64(1.0 / target.quota.configured_rate());
    for (turn, (store, question)) in (0..).zip(questions) {
        let service = Arc::clone(&service);
        asking.spawn(async move {
            clock.sleep(spacing * turn).await;
            let answers = ask_store(&*service, &store, question).await;
            (store, answers)
        });
    }
    let identity = service.caller_identity().await;
    let stores = asking.join_all().await.into_iter().collect();
    Ok(Reached { aws_region: Arc::clone(service.aws_region()), identity, stores })
}

/// Lists first: the listing may name a job to request.
async fn ask_store(service: &dyn HealthOmics, store: &ReferenceStoreId, question: Question) -> [Answer; 2] {
    let listed = service.list_reference_import_jobs(store, None, None).await;
    let found = listed.as_ref().ok().and_then(|page| page.jobs.first()).map(|job| job.job.clone());
    let known = question.job.or(found);
    let Some(job) = known.clone().or_else(|| NO_JOB.parse().ok()) else { unreachable!("NO_JOB is an id") };
    let got = service.get_reference_import_job(&JobKey { store: store.clone(), job }).await.map(drop);
    let got = match got {
        Err(failure) if failure.reason == FailureReason::NotFound && known.is_none() && listed.is_ok() => Ok(()),
        got => got,
    };
    [
        Answer { operation: Operation::GetReferenceImportJob, outcome: got, needed: true },
        Answer {
            operation: Operation::ListReferenceImportJobs,
            outcome: listed.map(drop),
            needed: question.needs_listing,
        },
    ]
}

/// Who the credentials of a target are, or why that is not known.
fn identity(reached: &Result<Reached, TargetError>) -> String {
    match reached {
        Err(error) => format!(": {error}"),
        Ok(Reached { aws_region, identity, .. }) => match identity {
            Ok(Some(CallerIdentity { arn, account })) => format!(", {aws_region}: {arn}, account {account}"),
            Ok(None) => format!(
                ", {aws_region}: who the credentials are is not known: its endpoint is not AWS's, and \
                 AWS_ENDPOINT_URL_STS names no STS to ask"
            ),
            Err(failure) => format!(", {aws_region}: who the credentials are is not known: {failure}"),
        },
    }
}

impl Answer {
    fn text(&self) -> String {
        let failure = match &self.outcome {
            Ok(()) => return "allowed".to_owned(),
            Err(failure) => failure,
        };
        let optional = !self.needed && failure.reason == FailureReason::AccessDenied;
        let without = if optional { " — its jobs are polled one by one instead" } else { "" };
        format!("{}: {failure}{without}", failure.reason.class().summary)
    }
}
