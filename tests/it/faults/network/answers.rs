//! Answers that are errors, none, or not as they should be: a daemon with a target for each comes through.

use refwatch::simulator::Fault;

use super::{LIMIT, LONG, SHORT, Trial};

#[tokio::test(flavor = "multi_thread")]
async fn fault_001_002_004_throttles_slow_the_target_alone_and_never_fail_a_job() {
    let reasons = [Fault::Throttling, Fault::ThrottlingHtml, Fault::RetryAfterAbsurd].map(|fault| (fault, "throttled"));
    let trial = Trial::run(LONG, &reasons.map(|(fault, _)| fault)).await;
    trial.assert_came_through(&reasons);
    let allowed = |name| trial.of(name, "refwatch_quota_allowed_requests_per_second", "");
    for (fault, _) in reasons {
        assert!(allowed(fault.name()) < 0.75 * LIMIT, "{fault:?}: {}", allowed(fault.name()));
    }
    assert!(allowed("none") >= LIMIT, "{}", allowed("none"));
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_005_006_007_025_what_passes_is_asked_again() {
    let reasons = [
        (Fault::RequestTimeout, "timeout"),
        (Fault::RequestTimeoutHtml, "timeout"),
        (Fault::Internal, "internal"),
        (Fault::BadGatewayHtml, "internal"),
        (Fault::UnavailableHtml, "internal"),
        (Fault::GatewayTimeoutHtml, "internal"),
        (Fault::UnknownHttp, "internal"),
    ];
    let trial = Trial::run(LONG, &reasons.map(|(fault, _)| fault)).await;
    trial.assert_came_through(&reasons);
    trial.assert_logged(&["HTTP 408, but", "HTTP 502, but", "HTTP 503, but", "HTTP 504, but", "HTTP 599, but", "<h1>"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_008_009_010_012_013_026_028_an_answer_that_is_none_is_no_transition() {
    let faults = [
        Fault::Html,
        Fault::Empty,
        Fault::Truncated,
        Fault::Huge,
        Fault::GzipBomb,
        Fault::Deep,
        Fault::InvalidUtf8,
        Fault::WrongJob,
        Fault::Redirect,
    ];
    let reasons = faults.map(|fault| (fault, "protocol"));
    let trial = Trial::run(LONG, &faults).await;
    trial.assert_came_through(&reasons);
    trial.assert_logged(&["the answer is longer than 1048576 bytes", "redirects are not followed", "Welcome to"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_011_027_an_answer_in_odd_clothes_is_taken_and_of_a_key_twice_the_last_counts() {
    let faults = [Fault::WrongType, Fault::DuplicateKeys];
    Trial::run(LONG, &faults).await.assert_came_through(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_014_015_016_029_a_connection_that_stalls_or_breaks_costs_one_poll() {
    let reasons = [
        (Fault::Hang, "timeout"),
        (Fault::Slow, "timeout"),
        (Fault::EndlessHeaders, "timeout"),
        (Fault::Reset, "connect"),
        (Fault::CutOff, "connect"),
    ];
    let mut faults = reasons.map(|(fault, _)| fault).to_vec();
    faults.push(Fault::Closed);
    let trial = Trial::run(SHORT, &faults).await;
    trial.assert_came_through(&reasons);
    trial.assert_logged(&["no whole answer before poll.timeout", "the answer broke off"]);
}
