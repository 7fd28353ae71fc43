//! One daemon from a start to its stop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use refwatch::core::job::{JobKey, JobStatus};
use refwatch::core::transition::Transition;
use refwatch::database::{DatabaseReader, Filter};
use refwatch::notify::Sinks;
use refwatch::state::TransitionEvent;
use refwatch::tasks::context::TaskContext;
use refwatch::tasks::supervisor::Supervisor;
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinSet;

use crate::sinks::SinkHost;

pub(crate) struct Instance {
    pub context: TaskContext,
    pub supervisor: Supervisor,
    pub announced: Receiver<Arc<TransitionEvent>>,
    /// The number of transitions published for each job, restored ones included.
    pub recorded: BTreeMap<JobKey, usize>,
    pub sinks: Sinks,
    pub writer: JoinSet<()>,
}

impl Instance {
    /// Aborts all tasks.
    pub(crate) async fn kill(mut self) {
        self.writer.shutdown().await;
        drop(self.supervisor);
        drop(self.sinks);
        // The supervisor's tasks end when they would next run.
        tokio::task::yield_now().await;
    }

    /// Stops the daemon. With `drained`, its sinks first receive everything.
    pub(crate) async fn stop(mut self, drained: Option<&SinkHost>) {
        self.supervisor.stop().await;
        if let Some(host) = drained {
            host.drain(&mut self.sinks, &self.context).await;
        }
        self.sinks.stop().await;
        self.context.database.close().await;
        while self.writer.join_next().await.is_some() {}
    }
}

/// The statuses of each job in the database, in order.
pub(crate) fn recorded(path: &Path) -> BTreeMap<JobKey, Vec<JobStatus>> {
    let mut recorded: BTreeMap<JobKey, Vec<JobStatus>> = BTreeMap::new();
    if !path.exists() {
        return recorded;
    }
    for row in DatabaseReader::new(path).rows::<Transition>(&Filter::default()).expect("a database") {
        recorded.entry(row.target_job.key).or_default().push(row.value.to);
    }
    recorded
}
