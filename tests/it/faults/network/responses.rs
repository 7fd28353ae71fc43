//! Faults in responses and connections, simulated over HTTP: one daemon with a target for each.

use refwatch::simulator::{Fault, NamedFault as _};

use super::{FaultRun, LIMIT, LONG, SHORT};

#[tokio::test(flavor = "multi_thread")]
async fn fault_001_002_004_throttling_slows_only_its_target_and_fails_no_job() {
    let reasons = [Fault::Throttling, Fault::ThrottlingHtml, Fault::RetryAfterAbsurd].map(|fault| (fault, "throttled"));
    let run = FaultRun::run(LONG, &reasons.map(|(fault, _)| fault)).await;
    run.assert_all_jobs_seen(&reasons);
    let allowed = |name| run.value(name, "refwatch_quota_allowed_requests_per_second", "");
    for (fault, _) in reasons {
        assert!(allowed(fault.name()) < 0.75 * LIMIT, "{fault:?}: {}", allowed(fault.name()));
    }
    assert!(allowed("none") >= LIMIT, "{}", allowed("none"));
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_005_006_007_025_transient_errors_are_retried() {
    let reasons = [
        (Fault::RequestTimeout, "timeout"),
        (Fault::RequestTimeoutHtml, "timeout"),
        (Fault::Internal, "internal"),
        (Fault::BadGatewayHtml, "internal"),
        (Fault::UnavailableHtml, "internal"),
        (Fault::GatewayTimeoutHtml, "internal"),
        (Fault::UnknownHttp, "internal"),
    ];
    let run = FaultRun::run(LONG, &reasons.map(|(fault, _)| fault)).await;
    run.assert_all_jobs_seen(&reasons);
    run.assert_reported(&["HTTP 408 with", "HTTP 502 with", "HTTP 503 with", "HTTP 504 with", "HTTP 599 with", "<h1>"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_008_009_010_012_013_026_028_an_invalid_response_causes_no_transition() {
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
    let run = FaultRun::run(LONG, &faults).await;
    run.assert_all_jobs_seen(&reasons);
    run.assert_reported(&["the response is longer than 1048576 bytes", "redirects are not followed", "Welcome to"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_011_027_a_wrong_content_type_is_accepted_and_the_last_duplicate_key_counts() {
    let faults = [Fault::WrongType, Fault::DuplicateKeys];
    FaultRun::run(LONG, &faults).await.assert_all_jobs_seen(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_014_015_016_029_a_stalled_or_broken_connection_fails_one_poll() {
    let reasons = [
        (Fault::Hang, "timeout"),
        (Fault::Slow, "timeout"),
        (Fault::EndlessHeaders, "timeout"),
        (Fault::Reset, "connect"),
        (Fault::CutOff, "connect"),
    ];
    let mut faults = reasons.map(|(fault, _)| fault).to_vec();
    faults.push(Fault::Closed);
    let run = FaultRun::run(SHORT, &faults).await;
    run.assert_all_jobs_seen(&reasons);
    run.assert_reported(&["no complete response within", "the response was cut off"]);
}
