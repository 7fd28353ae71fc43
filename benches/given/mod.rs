//! What the benchmarks of single rooms are given: jobs as HealthOmics tells of them, and boards full of them.

#![allow(dead_code, reason = "not every benchmark needs all of it")]

use std::sync::Arc;

use refwatch::board::{StatusBoard, WatchView};
use refwatch::core::change::{Change, Transition};
use refwatch::core::job::{JobStatus, Snapshot, Source, SourceKey, SourceStatus, WatchId};
use refwatch::core::time::Timestamp;
use refwatch::core::watch::Known;

/// One of ten thousand million jobs, those of neighbouring numbers far apart, as the service's ids are.
pub(crate) fn job(number: u64) -> Arc<WatchId> {
    let digits = number.wrapping_mul(2_654_435_761) % 10_000_000_000;
    let key = format!("1234567890/{digits:010}").parse();
    Arc::new(WatchId { target: "default".into(), key: key.unwrap_or_else(|_| unreachable!("ten digits each")) })
}

/// A time, to the nanosecond, as the system's clock tells it.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::new(1_700_000_000 + seconds, 123_456_789).unwrap_or_default()
}

/// What the service says of a job with two sources.
pub(crate) fn snapshot(status: JobStatus) -> Snapshot {
    let source = |nth| {
        let key =
            SourceKey { name: "GRCh38".into(), source_file: format!("s3://references/GRCh38-{nth}.fa").into(), nth };
        (key, Source { status: SourceStatus::InProgress, status_message: None })
    };
    let completed_at = status.is_terminal().then(|| at(300));
    let sources = [0, 1].map(source).into_iter().collect();
    Snapshot { status, status_message: None, created_at: Some(at(-60)), completed_at, sources }
}

/// A job's status seen to change.
pub(crate) fn change(from: Option<JobStatus>, to: JobStatus, seconds: i64) -> Change {
    let transition = Transition {
        not_before: from.as_ref().map(|_| at(seconds - 10)),
        completed_at: to.is_terminal().then(|| at(seconds)),
        from,
        to,
        observed_at: at(seconds),
        status_message: None,
        created_at: Some(at(-60)),
        anomaly: None,
    };
    Change { transition: Some(transition), ..Change::default() }
}

/// A board with so many watches, one of which is polled as well as the other.
pub(crate) fn board(watches: u64) -> StatusBoard {
    let board = StatusBoard::default();
    for number in 0..watches {
        let id = job(number);
        let Snapshot { status, status_message, created_at, completed_at, sources } = snapshot(JobStatus::InProgress);
        let (since, last_seen, vanished_at) = (at(0), at(300), None);
        let known = Known {
            status,
            status_message,
            created_at,
            completed_at,
            sources: sources.into(),
            since,
            last_seen,
            vanished_at,
        };
        let name = format!("reference-{number}").into();
        board.publish(WatchView {
            known: Some(known.into()),
            up: Some(true),
            last_successful_poll: Some(at(300)),
            next_poll: Some(at(301)),
            ..WatchView::new(id, name, "us-west-2".into(), [1, 1, 0, 0, 0, 0, 0, 0])
        });
    }
    board
}
