//! Writes the metrics of sinks that are read from `state`. Deliveries and attempts are counted in `instruments`.

use std::sync::Arc;

use super::exposition::{Exposition, labels};
use super::seconds;
use crate::state::{SinkState, SinkStatus};

pub(super) fn write(sinks: &[Arc<SinkStatus>], exposition: &mut Exposition) {
    let sink = |sink: &SinkStatus| labels(&[("sink", &sink.name)]);
    exposition.family(
        "refwatch_sink_up",
        "1 if the sink accepts notifications, 0 while it is paused or disabled.",
        sinks.iter().map(|status| (sink(status), f64::from(status.state == SinkState::Up))),
    );
    exposition.family(
        "refwatch_sink_disabled",
        "1 if the sink responded with 410 and is disabled until its configuration changes, 0 otherwise.",
        sinks.iter().map(|status| (sink(status), f64::from(status.state == SinkState::Disabled))),
    );
    exposition.family(
        "refwatch_notify_backlog",
        "Notifications that wait for delivery.",
        sinks.iter().map(|status| (sink(status), f64::from(status.waiting))),
    );
    exposition.family(
        "refwatch_notify_oldest_undelivered_timestamp_seconds",
        "When the oldest waiting event was observed.",
        sinks.iter().filter_map(|status| Some((sink(status), seconds(status.oldest_waiting_at?)))),
    );
}
