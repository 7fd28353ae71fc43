//! Every fault does what its name says.

use super::*;
use refwatch::simulator::{Fault, FaultRate};

async fn start_with(fault: Fault) -> Simulator {
    start(Options { faults: vec![FaultRate { fault, rate: 1.0 }], ..options() }).await
}

/// What a request of a job comes to under a fault that answers.
async fn struck(fault: Fault) -> (Simulator, Reply) {
    let simulator = start_with(fault).await;
    let reply = get(&simulator, &path_of_first(&simulator)).await;
    (simulator, reply)
}

#[tokio::test]
async fn a_fault_can_be_every_error_of_the_api() {
    let errors = [
        (Fault::Throttling, (429, "ThrottlingException")),
        (Fault::Internal, (500, "InternalServerException")),
        (Fault::RequestTimeout, (408, "RequestTimeoutException")),
        (Fault::AccessDenied, (403, "AccessDeniedException")),
        (Fault::NotFound, (404, "ResourceNotFoundException")),
        (Fault::Validation, (400, "ValidationException")),
    ];
    for (fault, expected) in errors {
        let (simulator, reply) = struck(fault).await;
        assert_eq!(reply.error(), expected);
        assert_eq!(list(&simulator, "", &json!({})).await.error(), expected);
        let calls = get(&simulator, "/-/calls").await.json();
        assert_eq!(
            (&calls["GetReferenceImportJob"]["faulted"], &calls["ListReferenceImportJobs"]["faulted"]),
            (&json!(1), &json!(1))
        );
    }
}

#[tokio::test]
async fn a_fault_can_be_an_answer_that_is_none() {
    for (fault, status) in [(Fault::UnavailableHtml, 503), (Fault::Html, 200)] {
        let (_, reply) = struck(fault).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.headers["content-type"]),
            (status, &"text/html".parse().expect("a type"))
        );
        assert!(reply.body.starts_with(b"<html>"));
    }
    let (_, empty) = struck(Fault::Empty).await;
    assert_eq!((empty.status.as_u16(), empty.body.len()), (200, 0));
    let (_, cut) = struck(Fault::Truncated).await;
    let error = serde_json::from_slice::<Value>(&cut.body).expect_err("JSON that is cut");
    assert!(cut.status == 200 && error.is_eof(), "{error}");
    let (_, huge) = struck(Fault::Huge).await;
    assert!(huge.body.len() > 1 << 20);
    check_members(&huge.json());
}

#[tokio::test]
async fn a_fault_can_be_an_answer_that_says_what_is_not_so() {
    let (simulator, reply) = struck(Fault::WrongJob).await;
    let (wrong, job) = (reply.json(), simulator.jobs().next().expect("a job"));
    check_members(&wrong);
    assert!(wrong["id"] != job.id.as_str() && wrong["id"].as_str().is_some_and(|id| id.len() == job.id.len()));
    assert_eq!(wrong["referenceStoreId"], job.reference_store_id.as_str());

    let (simulator, reply) = struck(Fault::UnknownStatus).await;
    assert_eq!(reply.json()["status"], "PAUSED");
    let listed = list(&simulator, "", &json!({})).await.json();
    assert!(listed["importJobs"].as_array().is_some_and(|jobs| jobs.iter().all(|job| job["status"] == "PAUSED")));
}

#[tokio::test]
async fn a_fault_can_be_a_connection_that_fails() {
    let reset = start_with(Fault::Reset).await;
    let outcome = begin(reset.address(), signed(Method::GET, &path_of_first(&reset), "")).await;
    let error = outcome.err().expect("no answer");
    assert!(format!("{error:?}").contains("ConnectionReset"), "{error:?}");

    let cut_off = start_with(Fault::CutOff).await;
    let begun = begin(cut_off.address(), signed(Method::GET, &path_of_first(&cut_off), "")).await.expect("an answer");
    assert_eq!(begun.response.status(), 200);
    let error = begun.response.into_body().collect().await.expect_err("the body does not end");
    assert!(error.is_incomplete_message() || format!("{error:?}").contains("UnexpectedEof"), "{error:?}");
}

#[tokio::test]
async fn a_fault_can_be_a_body_that_trickles() {
    let slow = start_with(Fault::Slow).await;
    let mut begun = begin(slow.address(), signed(Method::GET, &path_of_first(&slow), "")).await.expect("an answer");
    let length: usize = begun.response.headers()["content-length"].to_str().expect("text").parse().expect("a number");
    assert!(length > 100);
    for byte in ["{", "\""] {
        let frame = tokio::time::timeout(DEADLINE, begun.response.body_mut().frame()).await.expect("in time");
        let data = frame.expect("more").expect("no error").into_data().expect("data");
        assert_eq!(data, byte);
    }
}

#[tokio::test]
async fn a_request_that_hangs_ends_with_the_simulator_and_the_port_is_free_again() {
    let simulator = start_with(Fault::Hang).await;
    let address = simulator.address();
    let mut hanging = JoinSet::new();
    hanging.spawn(begin(address, signed(Method::GET, &path_of_first(&simulator), "")));
    let received = async {
        while get(&simulator, "/-/calls").await.json()["GetReferenceImportJob"]["faulted"] != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, received).await.expect("the request arrives");
    assert!(hanging.try_join_next().is_none(), "it hangs");
    tokio::time::timeout(DEADLINE, simulator.stop()).await.expect("it stops");
    let outcome = tokio::time::timeout(DEADLINE, hanging.join_next()).await.expect("the request ends");
    assert!(outcome.expect("a request").expect("no panic").is_err(), "without an answer");
    assert!(TcpStream::connect(address).await.is_err());
}
