//! Scripts: lists of outcomes and the expected decisions. Properties that hold for any script.

use proptest::prelude::*;

use super::*;
use crate::core::job::{Item, ItemKey, ItemStatus};
use crate::core::transition::ItemTransition;

const POLICY: PollPolicy = PollPolicy {
    interval: Duration::from_secs(10),
    is_interval_set: false,
    backoff: BackoffPolicy { initial: Duration::from_secs(1), max: Duration::from_mins(5) },
};

/// `seconds` after the start of the script.
fn now(seconds: u64) -> Now {
    let wall = Timestamp::from_second(i64::try_from(seconds).expect("small")).expect("in range");
    Now { monotonic: Monotonic::at(Duration::from_secs(seconds)), wall }
}

fn snapshot(status: &str) -> Snapshot {
    let status = JobStatus::from(status);
    let completed_at = status.is_terminal().then(|| now(0).wall);
    Snapshot {
        status,
        status_message: None,
        created_at: Some(now(0).wall),
        completed_at,
        items: Items::default(),
        exceeded_limits: Vec::new(),
    }
}

fn failure(reason: FailureReason) -> RequestFailure {
    RequestFailure { reason, message: reason.label().to_owned(), retry_after: None }
}

/// Feeds the outcomes at 0 s, 100 s, 200 s … and writes each decision as a line: `from>to anomaly`, `+detail`,
/// `item from>to`, `!limit`, then the next action.
fn play(script: impl IntoIterator<Item = PollResult>) -> Vec<String> {
    let mut watch = JobTracker::new(POLICY, None, 1);
    let mut lines = Vec::new();
    for (step, outcome) in script.into_iter().enumerate() {
        let now = now(100 * step as u64);
        lines.push(describe(&watch.handle(outcome, now), now));
    }
    lines
}

fn describe(decision: &Decision, now: Now) -> String {
    let mut words = Vec::new();
    if let Some(Transition { from, to, anomaly, .. }) = &decision.change.transition {
        words.push(format!("{}>{to}", from.as_ref().map_or("", JobStatus::as_str)));
        words.extend(anomaly.map(|anomaly| anomaly.as_str().to_owned()));
    }
    words.extend(decision.change.details.iter().map(|detail| format!("+{}", detail.kind.as_str())));
    for ItemTransition { key, from, to, .. } in &decision.change.items {
        let from = from.as_ref().map_or("", ItemStatus::as_str);
        let to = to.as_ref().map_or("", |to| to.status.as_str());
        words.push(format!("{}#{} {from}>{to}", key.name, key.nth));
    }
    words.extend(decision.exceeded_limits.iter().map(|limit| format!("!{}", limit.label())));
    words.push(match &decision.next {
        NextAction::PollAt(at) => format!("{} s", at.since(now.monotonic).as_secs_f64().round()),
        NextAction::Finished(status) => format!("finished {status}"),
        NextAction::Parked(reason) => format!("parked {reason}"),
    });
    words.join(" ")
}

fn statuses(names: &[&str]) -> Vec<String> {
    play(names.iter().map(|name| Ok(snapshot(name))))
}

#[test]
fn a_job_is_tracked_from_its_first_observation_to_its_end() {
    assert_eq!(
        statuses(&["SUBMITTED", "SUBMITTED", "IN_PROGRESS", "COMPLETED"]),
        [">SUBMITTED 10 s", "10 s", "SUBMITTED>IN_PROGRESS 10 s", "IN_PROGRESS>COMPLETED finished COMPLETED"]
    );
}

#[test]
fn every_terminal_status_ends_the_watch_and_no_other_does() {
    for status in JobStatus::DOCUMENTED {
        let ends = statuses(&[status.as_str()])[0].contains("finished");
        assert_eq!(ends, status.is_terminal(), "{status}");
    }
}

#[test]
fn statuses_may_be_skipped_and_a_cancelling_job_may_complete() {
    assert_eq!(statuses(&["SUBMITTED", "FAILED"])[1], "SUBMITTED>FAILED finished FAILED");
    assert_eq!(statuses(&["CANCELLING", "COMPLETED"])[1], "CANCELLING>COMPLETED finished COMPLETED");
}

#[test]
fn a_status_that_the_api_page_does_not_list_is_kept_and_is_not_terminal() {
    assert_eq!(
        statuses(&["IN_PROGRESS", "PAUSED", "IN_PROGRESS"])[1..],
        ["IN_PROGRESS>PAUSED 10 s", "PAUSED>IN_PROGRESS 10 s"]
    );
}

#[test]
fn a_status_that_goes_back_is_saved_and_marked() {
    assert_eq!(statuses(&["IN_PROGRESS", "SUBMITTED"])[1], "IN_PROGRESS>SUBMITTED regressed 10 s");
}

#[test]
fn an_ended_job_is_reopened_by_two_responses_in_a_row() {
    assert_eq!(
        statuses(&["FAILED", "IN_PROGRESS", "IN_PROGRESS", "COMPLETED"]),
        [
            ">FAILED finished FAILED",
            "10 s",
            "FAILED>IN_PROGRESS reopened 10 s",
            "IN_PROGRESS>COMPLETED finished COMPLETED"
        ]
    );
    assert_eq!(statuses(&["FAILED", "IN_PROGRESS", "FAILED"])[1..], ["10 s", "finished FAILED"]);
}

#[test]
fn a_job_has_ended_from_its_first_terminal_status_on() {
    let mut watch = JobTracker::new(POLICY, None, 1);
    for (status, has_ended) in [("SUBMITTED", false), ("FAILED", true), ("IN_PROGRESS", true), ("IN_PROGRESS", true)] {
        watch.handle(Ok(snapshot(status)), now(0));
        assert_eq!(watch.state().expect("a job").ended_once, has_ended, "{status}");
    }
}

#[test]
fn retention_starts_at_the_completion_time_or_at_the_observed_end_if_that_is_earlier() {
    let remaining_retention = |status, completed_at: Option<u64>, seen: u64, at: u64| {
        let completed_at = completed_at.map(|at| now(at).wall);
        let mut watch = JobTracker::new(POLICY, None, 1);
        let decision = watch.handle(Ok(Snapshot { completed_at, ..snapshot(status) }), now(seen));
        assert!(decision.change.transition.is_some());
        let wait = watch.state().expect("a job").remaining_retention(Duration::from_mins(1), now(at).wall);
        wait.map(|wait| wait.as_secs())
    };
    assert_eq!(remaining_retention("IN_PROGRESS", Some(10), 10, 1_000), None);
    assert_eq!(remaining_retention("COMPLETED", Some(100), 110, 110), Some(50));
    assert_eq!(remaining_retention("COMPLETED", Some(100), 500, 500), Some(0), "it ended long before its first poll");
    assert_eq!(remaining_retention("FAILED", None, 110, 130), Some(40));
    assert_eq!(remaining_retention("FAILED", Some(100_000), 110, 130), Some(40), "the service's clock is ahead");
    assert_eq!(remaining_retention("FAILED", None, 110, 50), Some(60), "the local clock was set back");
}

#[test]
fn the_retention_of_a_vanished_job_starts_at_the_first_404() {
    let mut watch = JobTracker::new(POLICY, None, 1);
    watch.handle(Ok(snapshot("IN_PROGRESS")), now(100));
    watch.handle(Err(failure(FailureReason::NotFound)), now(130));
    let remaining_retention = |watch: &JobTracker| {
        watch
            .state()
            .expect("a job")
            .remaining_retention(Duration::from_mins(1), now(140).wall)
            .map(|wait| wait.as_secs())
    };
    assert_eq!(remaining_retention(&watch), Some(50));
    watch.handle(Ok(snapshot("IN_PROGRESS")), now(140));
    assert_eq!(remaining_retention(&watch), None);
}

#[test]
fn a_second_terminal_status_is_saved_and_marked() {
    assert_eq!(statuses(&["FAILED", "COMPLETED"])[1], "FAILED>COMPLETED end_changed finished COMPLETED");
}

#[test]
fn an_end_without_completion_time_is_saved_and_marked() {
    let ended = Snapshot { completed_at: None, ..snapshot("COMPLETED") };
    assert_eq!(play([Ok(ended)]), [">COMPLETED no_completion_time finished COMPLETED"]);
}

#[test]
fn a_change_lies_between_the_last_observation_of_the_old_status_and_the_first_of_the_new_status() {
    let mut watch = JobTracker::new(POLICY, None, 1);
    for (at, status) in [(0, "SUBMITTED"), (30, "SUBMITTED"), (50, "IN_PROGRESS")] {
        let change = watch.handle(Ok(snapshot(status)), now(at)).change.transition;
        if let Some(Transition { from: Some(_), observed_at, not_before, .. }) = change {
            assert_eq!((not_before, observed_at), (Some(now(30).wall), now(50).wall));
        }
    }
    let clock_set_back = watch.handle(Ok(snapshot("FAILED")), now(20)).change.transition.expect("a change");
    assert_eq!(clock_set_back.not_before, Some(clock_set_back.observed_at));
}

#[test]
fn a_new_message_or_creation_time_is_a_detail_and_no_transition() {
    let reworded = Snapshot { status_message: Some("slow".to_owned()), ..snapshot("IN_PROGRESS") };
    let recreated = Snapshot { created_at: Some(now(7).wall), ..reworded.clone() };
    assert_eq!(
        play([Ok(snapshot("IN_PROGRESS")), Ok(reworded), Ok(recreated)])[1..],
        ["+status_message 10 s", "+creation_time_changed 10 s"]
    );
}

#[test]
fn name_and_file_identify_a_source_and_named_sources_replace_the_known_ones() {
    let with = |items: &[(&str, u32, &str)]| {
        let item = |&(name, nth, status): &(&str, u32, &str)| {
            let key = ItemKey { name: name.into(), source_file: format!("s3://b/{name}").into(), nth };
            (key, Item { status: status.into(), status_message: None })
        };
        Ok(Snapshot { items: items.iter().map(item).collect(), ..snapshot("IN_PROGRESS") })
    };
    assert_eq!(
        play([
            with(&[("b", 0, "NOT_STARTED"), ("a", 0, "NOT_STARTED"), ("a", 1, "IN_PROGRESS")]),
            with(&[("a", 0, "IN_PROGRESS"), ("a", 1, "NOT_STARTED"), ("b", 0, "FAILED")]),
            with(&[]),
            with(&[("b", 0, "FAILED"), ("a", 0, "FINISHED")]),
            with(&[("b", 0, "FAILED"), ("a", 0, "FINISHED"), ("a", 1, "FINISHED")]),
        ]),
        [
            ">IN_PROGRESS a#0 >NOT_STARTED a#1 >IN_PROGRESS b#0 >NOT_STARTED 10 s",
            "b#0 NOT_STARTED>FAILED 10 s",
            "10 s",
            "a#0 NOT_STARTED>FINISHED a#1 IN_PROGRESS> 10 s",
            "a#1 >FINISHED 10 s",
        ]
    );
}

#[test]
fn a_known_job_vanishes_once_and_may_return() {
    let gone = || Err(failure(FailureReason::NotFound));
    assert_eq!(
        play([gone(), Ok(snapshot("SUBMITTED")), gone(), gone(), Ok(snapshot("SUBMITTED"))]),
        ["1 s", ">SUBMITTED 10 s", "+vanished 300 s", "300 s", "+returned 10 s"]
    );
}

#[test]
fn past_the_limit_of_transitions_only_an_end_is_saved() {
    let live = ["SUBMITTED", "IN_PROGRESS"].into_iter().cycle().take(Limit::Transitions.max());
    let script: Vec<_> =
        live.chain(["SUBMITTED", "IN_PROGRESS", "COMPLETED", "SUBMITTED", "SUBMITTED", "FAILED"]).collect();
    let played = statuses(&script);
    assert_eq!(played[Limit::Transitions.max() - 1], "SUBMITTED>IN_PROGRESS 10 s");
    assert_eq!(
        played[Limit::Transitions.max()..],
        [
            "!transitions 10 s",
            "10 s",
            "IN_PROGRESS>COMPLETED finished COMPLETED",
            "10 s",
            "!transitions finished COMPLETED",
            "!transitions finished COMPLETED",
        ]
    );
}

#[test]
fn past_the_limit_of_changes_a_vanished_job_returns_only_with_a_transition() {
    let mut watch = JobTracker::new(POLICY, None, 1);
    watch.handle(Ok(snapshot("SUBMITTED")), now(0));
    let mut rows = 0;
    let mut poll = |watch: &mut JobTracker, outcome| {
        let decision = watch.handle(outcome, now(1));
        rows += decision.change.details.len();
        (describe(&decision, now(1)), rows)
    };
    let mut last = (String::new(), 0);
    for _ in 0..=Limit::Changes.max() {
        poll(&mut watch, Err(failure(FailureReason::NotFound)));
        last = poll(&mut watch, Ok(snapshot("SUBMITTED")));
    }
    assert_eq!(last, ("!changes 10 s".to_owned(), 2 * Limit::Changes.max() + 1));
    assert_eq!(poll(&mut watch, Ok(snapshot("IN_PROGRESS"))).0, "SUBMITTED>IN_PROGRESS !changes 10 s");
    assert_eq!(watch.state().expect("a job").vanished_at, None);
}

#[test]
fn past_the_limit_of_changes_a_source_is_not_shown_and_a_message_only_with_a_transition() {
    let mut watch = JobTracker::new(POLICY, None, 1);
    watch.handle(Ok(snapshot("SUBMITTED")), now(0));
    let key = ItemKey { name: "a".into(), source_file: "s3://b/a".into(), nth: 0 };
    let item = Item { status: ItemStatus::InProgress, status_message: None };
    for (left, status, expected, items, message) in [
        (2, "SUBMITTED", "+status_message a#0 >IN_PROGRESS 10 s", 1, Some("slow")),
        (1, "SUBMITTED", "!changes 10 s", 0, None),
        (0, "IN_PROGRESS", "SUBMITTED>IN_PROGRESS !changes 10 s", 0, Some("slow")),
    ] {
        let mut before = watch.state().expect("a job").as_ref().clone();
        before.changes_towards_limit = Limit::Changes.max() - left;
        let mut watch = JobTracker::new(POLICY, Some(Arc::new(before)), 1);
        let items_seen = Items::from([(key.clone(), item.clone())]);
        let seen = Snapshot { items: items_seen, status_message: Some("slow".to_owned()), ..snapshot(status) };
        let decision = watch.handle(Ok(seen), now(1));
        let state = watch.state().expect("a job");
        assert_eq!(describe(&decision, now(1)), expected);
        assert_eq!((state.items.len(), state.status_message.as_deref()), (items, message), "{left} left");
    }
}

#[test]
fn each_retry_class_has_its_own_next_action() {
    for reason in FailureReason::ALL {
        let next = play([Ok(snapshot("SUBMITTED")), Err(failure(reason))]).remove(1);
        match reason.info().retry {
            RetryClass::Backoff => assert_eq!(next, "1 s", "{reason:?}"),
            RetryClass::Recheck => assert_eq!(next.trim_start_matches("+vanished "), "300 s", "{reason:?}"),
            RetryClass::Park => assert_eq!(next, "parked validation", "{reason:?}"),
        }
    }
}

#[test]
fn retry_after_is_honoured_up_to_its_maximum() {
    for (retry_after, waited) in [(0, 1), (60, 60), (u64::MAX, 900)] {
        let failure =
            RequestFailure { retry_after: Some(Duration::from_secs(retry_after)), ..failure(FailureReason::Throttled) };
        assert_eq!(play([Err(failure)]), [format!("{waited} s")]);
    }
}

#[test]
fn a_tracker_continues_from_the_database() {
    let mut before = JobTracker::new(POLICY, None, 1);
    before.handle(Ok(snapshot("IN_PROGRESS")), now(0));
    let mut after = JobTracker::new(POLICY, before.state().cloned(), 2);
    assert_eq!(after.initial_action(now(50)), NextAction::PollAt(now(50).monotonic));
    let same = after.handle(Ok(snapshot("IN_PROGRESS")), now(50));
    assert!(same.change.is_empty());
    let end = after.handle(Ok(snapshot("COMPLETED")), now(60));
    assert_eq!(describe(&end, now(60)), "IN_PROGRESS>COMPLETED finished COMPLETED");
    assert_eq!(JobTracker::new(POLICY, after.state().cloned(), 3).initial_action(now(70)), end.next);
}

#[test]
fn an_unseen_job_may_expire_after_one_404_or_403_and_a_vanished_job_after_a_second_404() {
    let mut watch = JobTracker::new(POLICY, None, 1);
    for (reason, expires) in
        [(FailureReason::Timeout, false), (FailureReason::AccessDenied, true), (FailureReason::NotFound, true)]
    {
        assert_eq!(watch.handle(Err(failure(reason)), now(1)).may_expire(None), expires, "{reason:?}");
    }
    let script = [
        (Ok(snapshot("FAILED")), true),
        (Err(failure(FailureReason::Timeout)), true),
        (Err(failure(FailureReason::NotFound)), false),
        (Err(failure(FailureReason::Protocol)), false),
        (Err(failure(FailureReason::NotFound)), true),
    ];
    for (outcome, expires) in script {
        let case = format!("{outcome:?}");
        let decision = watch.handle(outcome, now(2));
        assert_eq!(decision.may_expire(watch.state().map(AsRef::as_ref)), expires, "{case}");
    }
}

fn any_outcome() -> impl Strategy<Value = PollResult> {
    let names = JobStatus::DOCUMENTED.map(|status| status.as_str().to_owned());
    let status = prop_oneof![4 => prop::sample::select(names.to_vec()), 1 => "[A-Z_]{1,12}"];
    prop_oneof![
        3 => status.prop_map(|status| Ok(snapshot(&status))),
        1 => prop::sample::select(FailureReason::ALL.to_vec()).prop_map(|reason| Err(failure(reason))),
    ]
}

proptest! {
    #[test]
    fn transitions_form_a_chain_after_any_script(script in prop::collection::vec(any_outcome(), 1..60)) {
        let mut watch = JobTracker::new(POLICY, None, 7);
        let mut last: Option<JobStatus> = None;
        for (step, outcome) in script.into_iter().enumerate() {
            let now = now(step as u64);
            let returned = outcome.as_ref().ok().map(|snapshot| snapshot.status.clone());
            let decision = watch.handle(outcome, now);
            if let Some(transition) = decision.change.transition {
                prop_assert_eq!(&transition.from, &last, "each transition begins where the last one ended");
                prop_assert_ne!(transition.from.as_ref(), Some(&transition.to), "no transition leads to itself");
                prop_assert_eq!(Some(&transition.to), returned.as_ref(), "every transition leads to the returned status");
                last = Some(transition.to);
            }
            match decision.next {
                NextAction::PollAt(at) => {
                    let delay = at.since(now.monotonic);
                    prop_assert!(POLICY.backoff.initial / 2 <= delay && delay <= POLICY.backoff.max);
                }
                NextAction::Finished(status) => prop_assert_eq!(Some(status), last.clone().filter(JobStatus::is_terminal)),
                NextAction::Parked(_) => prop_assert_eq!(returned, None),
            }
        }
    }
}
