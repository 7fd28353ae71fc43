//! `refwatch check --online`: who the credentials of each target are, and what they may do in the stores that are watched.
//!
//! One request of each operation for each store, and one to STS for each target; no retry. Requests leave as the target's quota
//! allows, each with the target's deadline, so the whole has one, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::super::exit::{Exit, Failure, print};
use super::super::table;
use crate::clock::Clock;
use crate::config::{Config, TargetConfig};
use crate::core::failure::{FailureReason, Operation, PollFailure};
use crate::core::job::{ImportJobId, JobKey, ReferenceStoreId};
use crate::core::sanitize::Printable;
use crate::healthomics::{Aws, CallerIdentity, Connect, HealthOmics, TargetError};

/// Asked for in a store of which no job is known. Who may not ask is refused all the same; that there is no such job says nothing else.
const NO_JOB: &str = "0000000000";

/// What is to be asked of one store.
#[derive(Clone, Debug, Default)]
struct Question {
    /// A job of the watch list.
    job: Option<ImportJobId>,
    /// Whether nothing else than listing finds its jobs.
    needs_listing: bool,
}

/// What came of one request. `needed` says whether the watch list can do without.
struct Answer {
    operation: Operation,
    outcome: Result<(), PollFailure>,
    needed: bool,
}

/// What is known of one target.
struct Report {
    target: TargetConfig,
    reached: Result<Reached, TargetError>,
}

struct Reached {
    aws_region: Arc<str>,
    identity: Result<Option<CallerIdentity>, PollFailure>,
    stores: BTreeMap<ReferenceStoreId, [Answer; 2]>,
}

/// Runs it.
pub(super) async fn run(config: &Config) -> Result<Exit, Failure> {
    let clock = Clock::system();
    let in_use = config.watch_list.targets();
    // The target that exists unwritten counts where it is used, or is all there is.
    let counts =
        |name: &Arc<str>| in_use.contains(name) || **name != *TargetConfig::DEFAULT || config.targets.len() == 1;
    let mut asking = JoinSet::new();
    for (name, target) in config.targets.iter().filter(|(name, _)| counts(name)) {
        let (target, questions) = (target.clone(), questions(config, name));
        asking.spawn(async move { Report { reached: ask(&target, questions, clock).await, target } });
    }
    let mut reports = BTreeMap::new();
    while let Some(report) = asking.join_next().await {
        let report = report.map_err(Failure::running)?;
        reports.insert(Arc::clone(&report.target.name), report);
    }
    print(shown(reports.values()))?;
    Ok(if reports.values().all(Report::is_enough) { Exit::Done } else { Exit::Failed })
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
    let spacing = std::time::Duration::from_secs_f64(1.0 / target.quota.allowed());
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

/// A listing first: it may name a job to ask for.
async fn ask_store(service: &dyn HealthOmics, store: &ReferenceStoreId, question: Question) -> [Answer; 2] {
    let listed = service.list_reference_import_jobs(store, None, None).await;
    let found = listed.as_ref().ok().and_then(|page| page.jobs.first()).map(|job| job.job.clone());
    let known = question.job.or(found);
    let job = known.clone().or_else(|| NO_JOB.parse().ok()).unwrap_or_else(ImportJobId::least);
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

impl Report {
    /// Whether all that the watch list needs is allowed. Who the credentials are need not be known.
    fn is_enough(&self) -> bool {
        let enough = |answer: &Answer| !answer.needed || answer.outcome.is_ok();
        self.reached.as_ref().is_ok_and(|reached| reached.stores.values().flatten().all(enough))
    }

    fn identity(&self) -> String {
        let name = &self.target.name;
        match &self.reached {
            Err(error) => format!("{name}: {error}"),
            Ok(Reached { aws_region, identity, .. }) => match identity {
                Ok(Some(CallerIdentity { arn, account })) => format!("{name}, {aws_region}: {arn}, account {account}"),
                Ok(None) => format!(
                    "{name}, {aws_region}: who the credentials are is not known: its endpoint is not AWS's, and \
                     AWS_ENDPOINT_URL_STS names no STS to ask"
                ),
                Err(failure) => format!("{name}, {aws_region}: who the credentials are is not known: {failure}"),
            },
        }
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

/// A line for each target, then a table with the result of each operation on its stores.
fn shown<'a>(reports: impl Iterator<Item = &'a Report> + Clone) -> String {
    let identities = reports.clone().map(|report| format!("{}\n", Printable(&report.identity())));
    let mut text: String = identities.collect();
    let mut rows = Vec::new();
    for report in reports {
        for (store, answers) in report.reached.iter().flat_map(|reached| &reached.stores) {
            rows.extend(answers.iter().map(|answer| {
                let result = Printable(&answer.text()).to_string();
                let operation = answer.operation.as_str().to_owned();
                ([report.target.name.to_string(), store.to_string(), operation, result], None)
            }));
        }
    }
    if !rows.is_empty() {
        text += "\n";
        text += &table::lines(["TARGET", "REFERENCE STORE", "OPERATION", "ANSWER"], rows, usize::MAX);
    }
    text
}
