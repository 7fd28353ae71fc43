//! The simulator over real sockets, tested with a client that knows only HTTP and the API reference.

mod faults;
mod sink;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use refwatch::clock::Clock;
use refwatch::simulator::{Kind, Options, SimulatedJob, Simulator};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const DEADLINE: Duration = Duration::from_secs(30);

/// Tolerance: timelines are truncated to milliseconds, and two readings of the wall clock may differ.
const CLOCK_SLACK: Duration = Duration::from_millis(20);

const ERROR_TYPE: &str = "x-amzn-errortype";

/// Slow jobs and no effective quota.
fn options() -> Options {
    Options { mean: Duration::from_hours(1), requests_per_second: 1e6, ..Options::default() }
}

async fn start(options: Options) -> Simulator {
    Simulator::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &options).await.expect("a free port on loopback")
}

/// A response with an unread body, and its connection.
struct StartedResponse {
    response: axum::http::Response<Incoming>,
    _connection: JoinSet<()>,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The status and the error's name. The body must contain only a message.
    fn error(&self) -> (u16, &str) {
        let body = self.json();
        assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "{body}");
        (self.status.as_u16(), self.headers[ERROR_TYPE].to_str().expect("text"))
    }
}

fn signed(method: Method, path: &str, body: &str) -> Request<Body> {
    let request =
        Request::builder().method(method).uri(path).header("host", "localhost").header("authorization", "any");
    request.body(Body::from(body.to_owned())).expect("a request")
}

async fn start_request(address: SocketAddr, request: Request<Body>) -> Result<StartedResponse, hyper::Error> {
    let stream = TcpStream::connect(address).await.expect("the simulator listens");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    Ok(StartedResponse { response: sender.send_request(request).await?, _connection: tasks })
}

async fn send(simulator: &Simulator, request: Request<Body>) -> Reply {
    let reply = async {
        let StartedResponse { response, _connection } =
            start_request(simulator.address(), request).await.expect("a response");
        let (head, body) = response.into_parts();
        Reply { status: head.status, headers: head.headers, body: body.collect().await.expect("a body").to_bytes() }
    };
    let reply = tokio::time::timeout(DEADLINE, reply).await.expect("a response in time");
    assert!(reply.headers.contains_key("x-amzn-requestid"));
    reply
}

async fn get(simulator: &Simulator, path: &str) -> Reply {
    send(simulator, signed(Method::GET, path, "")).await
}

async fn list(simulator: &Simulator, query: &str, body: &Value) -> Reply {
    let store = &simulator.jobs().next().expect("a job").store_id;
    let path = format!("/referencestore/{store}/importjobs{query}");
    send(simulator, signed(Method::POST, &path, &body.to_string())).await
}

fn path(job: &SimulatedJob) -> String {
    format!("/referencestore/{}/importjob/{}", job.store_id, job.id)
}

fn path_of_first(simulator: &Simulator) -> String {
    path(simulator.jobs().next().expect("a job"))
}

fn time(value: &Value) -> Timestamp {
    let text = value.as_str().expect("a timestamp");
    assert!(text.ends_with('Z') && text.contains('.'), "{text}");
    text.parse().expect("ISO 8601")
}

/// The ids on a page.
fn ids(page: &Value) -> Vec<String> {
    let jobs = page["importJobs"].as_array().expect("importJobs");
    jobs.iter().map(|job| job["id"].as_str().expect("an id").to_owned()).collect()
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Checks the required and optional members of a job.
fn check_members(job: &Value) {
    let required = ["creationTime", "id", "referenceStoreId", "roleArn", "sources", "status"];
    let all = BTreeSet::from(required).into_iter().chain(["completionTime", "statusMessage"]).collect();
    assert!(keys(job).is_superset(&required.into()) && keys(job).is_subset(&all), "{job}");
    assert!(job["roleArn"].as_str().is_some_and(|arn| arn.starts_with("arn:")));
    let sources = job["sources"].as_array().expect("sources");
    assert!(!sources.is_empty());
    for source in sources {
        let required = BTreeSet::from(["name", "sourceFile", "status", "tags"]);
        let all = required.iter().copied().chain(["description", "referenceId", "statusMessage"]).collect();
        assert!(keys(source).is_superset(&required) && keys(source).is_subset(&all), "{source}");
        assert_eq!(source["status"] == "FINISHED", source.get("referenceId").is_some(), "{source}");
        assert_eq!(source["status"] == "FAILED", source.get("statusMessage").is_some(), "{source}");
        assert!(source["sourceFile"].as_str().is_some_and(|file| file.starts_with("s3://")));
    }
    for message in sources.iter().chain([job]).filter_map(|said| said.get("statusMessage")) {
        assert!((1..=127).contains(&message.as_str().expect("text").chars().count()), "{message}");
    }
}

/// The statuses of a timeline between two times.
fn statuses_between(timeline: &[Value], from: Timestamp, to: Timestamp) -> Vec<&Value> {
    let ends = timeline.iter().skip(1).map(|next| time(&next["at"])).chain([Timestamp::MAX]);
    let spans = timeline.iter().zip(ends).filter(|(step, end)| time(&step["at"]) <= to && *end >= from);
    spans.map(|(step, _)| &step["status"]).collect()
}

#[tokio::test]
async fn responses_match_the_timeline_to_the_end_of_each_job() {
    let simulator = start(Options { mean: Duration::from_secs(1), jobs: 12, ..options() }).await;
    let (clock, timelines) = (Clock::system(), get(&simulator, "/-/jobs").await.json());
    let mut remaining: BTreeMap<&str, &Value> = BTreeMap::new();
    remaining.extend(timelines.as_array().expect("jobs").iter().map(|job| (job["id"].as_str().expect("an id"), job)));
    assert_eq!(remaining.len(), 12);
    let mut ends: BTreeSet<String> = BTreeSet::new();
    let walk = async {
        while !remaining.is_empty() {
            for job in simulator.jobs() {
                let Some(timelines) = remaining.get(job.id.as_str()) else { continue };
                let timeline = timelines["timeline"].as_array().expect("a timeline");
                let from = clock.now().wall - CLOCK_SLACK;
                let job_ids = get(&simulator, &path(job)).await.json();
                let possible = statuses_between(timeline, from, clock.now().wall + CLOCK_SLACK);
                assert!(possible.contains(&&job_ids["status"]), "{} is not in {possible:?}", job_ids["status"]);
                check_members(&job_ids);
                assert_eq!((&job_ids["id"], &job_ids["creationTime"]), (&timelines["id"], &timeline[0]["at"]));
                let end = timeline.last().expect("an end");
                let ended = job_ids["status"] == end["status"];
                assert_eq!(job_ids.get("completionTime"), ended.then(|| &end["at"]), "{job_ids}");
                if ended {
                    ends.insert(job_ids["status"].to_string());
                    remaining.remove(job.id.as_str());
                }
            }
            clock.sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, walk).await.expect("every job ends");
    assert_eq!(ends.len(), 4, "{ends:?}");
}

#[tokio::test]
async fn the_same_seed_gives_the_same_timelines_and_stuck_jobs_never_end() {
    /// Timelines relative to the creation of each job.
    async fn timelines_of(seed: u64) -> Vec<(String, Vec<(String, Duration)>)> {
        let simulator = start(Options { seed, stuck: 2, stores: 2, ..options() }).await;
        let timelines = get(&simulator, "/-/jobs").await.json();
        let timeline_of = |job: &Value| {
            let timeline = job["timeline"].as_array().expect("a timeline");
            let since_creation = |at: &Value| time(at).duration_since(time(&timeline[0]["at"])).unsigned_abs();
            let steps = timeline.iter().map(|step| (step["status"].to_string(), since_creation(&step["at"]))).collect();
            (format!("{} {} {}", job["store_id"], job["id"], job["outcome"]), steps)
        };
        timelines.as_array().expect("jobs").iter().map(timeline_of).collect()
    }
    let first = timelines_of(1).await;
    assert_eq!(first, timelines_of(1).await);
    assert_ne!(first, timelines_of(2).await);
    let unended = ["\"SUBMITTED\"", "\"IN_PROGRESS\"", "\"CANCELLING\""];
    let stuck = |(_, steps): &&(String, Vec<(String, _)>)| unended.contains(&&*steps.last().expect("a step").0);
    assert_eq!((first.len(), first.iter().filter(stuck).count()), (10, 2));
}

#[tokio::test]
async fn a_future_job_exists_from_its_creation_on() {
    let options = Options { jobs: 1, arrivals_per_minute: 5.0, ..options() };
    let job_ids = async |simulator: &Simulator| -> BTreeSet<String> {
        let timelines = get(simulator, "/-/jobs").await.json();
        timelines.as_array().expect("jobs").iter().map(|job| job["id"].as_str().expect("an id").to_owned()).collect()
    };
    // The same seed has the same jobs: the first simulator shows the next job of the second.
    let first = start(options.clone()).await;
    let there = job_ids(&first).await;
    let clock = Clock::system();
    let arrival = async {
        loop {
            if let Some(job) = job_ids(&first).await.difference(&there).next() {
                return job.clone();
            }
            clock.sleep(Duration::from_millis(20)).await;
        }
    };
    let job = tokio::time::timeout(DEADLINE, arrival).await.expect("a job arrives");
    let second = start(options).await;
    let store = &second.jobs().next().expect("a job").store_id;
    let path = format!("/referencestore/{store}/importjob/{job}");
    assert_eq!(get(&second, &path).await.error(), (404, "ResourceNotFoundException"));
    assert!(!ids(&list(&second, "", &json!({})).await.json()).contains(&job));
    let created = async {
        loop {
            let reply = get(&second, &path).await;
            if reply.status == 200 {
                return reply.json();
            }
            clock.sleep(Duration::from_millis(20)).await;
        }
    };
    let detail = tokio::time::timeout(DEADLINE, created).await.expect("a created job");
    assert!(ids(&list(&second, "", &json!({})).await.json()).contains(&job) && job_ids(&second).await.contains(&job));
    assert_eq!(detail["status"], "SUBMITTED");
    assert_eq!(second.jobs().count(), 1, "jobs() contains the initial jobs");
}

#[tokio::test]
async fn pages_of_a_long_listing_contain_each_job_once() {
    let simulator = start(Options { jobs: 250, ..options() }).await;
    let all: Vec<String> = simulator.jobs().map(|job| job.id.clone()).collect();
    for (size, query) in [(100, ""), (100, "?maxResults=100"), (7, "?maxResults=7")] {
        let (mut listed, mut token) = (Vec::new(), String::new());
        loop {
            let page = list(&simulator, &format!("{query}{token}"), &json!({})).await.json();
            let item = BTreeSet::from(["creationTime", "id", "referenceStoreId", "roleArn", "status"]);
            assert_eq!(keys(&page["importJobs"][0]), item);
            listed.extend(ids(&page));
            assert!(listed.len() <= all.len(), "{listed:?}");
            let Some(next) = page.get("nextToken").and_then(Value::as_str) else { break };
            assert_eq!(ids(&page).len(), size);
            let escaped = next.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
            token = format!("{}nextToken={escaped}", if query.is_empty() { '?' } else { '&' });
        }
        assert_eq!(listed, all, "by {size}");
    }
    let body = send(&simulator, signed(Method::POST, &path_of_first(&simulator).replace("job/", "jobs?x="), ""));
    assert_eq!(ids(&body.await.json()).len(), 100, "a body may be absent");
}

#[tokio::test]
async fn a_filter_selects_the_matching_jobs() {
    let simulator = start(Options { jobs: 40, mean: Duration::from_millis(50), ..options() }).await;
    let wait = async {
        let clock = Clock::system();
        while list(&simulator, "", &json!({})).await.json()["importJobs"]
            .as_array()
            .is_none_or(|jobs| jobs.iter().any(|job| job.get("completionTime").is_none()))
        {
            clock.sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("every job ends");
    let timelines = get(&simulator, "/-/jobs").await.json();
    let timelines = timelines.as_array().expect("jobs");
    let ids_where = |holds: &dyn Fn(&Value, Timestamp) -> bool| -> Vec<String> {
        let of = |job: &&Value| {
            let timeline = job["timeline"].as_array().expect("a timeline");
            holds(&timeline.last().expect("an end")["status"], time(&timeline[0]["at"]))
        };
        timelines.iter().filter(of).map(|job| job["id"].as_str().expect("an id").to_owned()).collect()
    };
    let mut created: Vec<Timestamp> = timelines.iter().map(|job| time(&job["timeline"][0]["at"])).collect();
    created.sort();
    let (early, late) = (created[0], created[39]);
    let listed = async |filter: Value| ids(&list(&simulator, "", &json!({ "filter": filter })).await.json());

    for status in ["COMPLETED", "COMPLETED_WITH_FAILURES", "FAILED", "CANCELLED"] {
        let expected = ids_where(&|end, _| end == status);
        assert!(!expected.is_empty());
        assert_eq!(listed(json!({ "status": status })).await, expected);
    }
    assert!(listed(json!({ "status": "SUBMITTED" })).await.is_empty());
    assert_eq!(listed(json!({ "createdAfter": early.to_string() })).await, ids_where(&|_, at| at > early));
    assert_eq!(listed(json!({ "createdBefore": late.to_string() })).await, ids_where(&|_, at| at < late));
    let both = json!({ "status": "COMPLETED", "createdAfter": early.to_string(), "createdBefore": late.to_string() });
    assert_eq!(listed(both).await, ids_where(&|end, at| end == "COMPLETED" && early < at && at < late));
    assert_eq!(listed(Value::Null).await.len(), 40);
}

#[tokio::test]
async fn invalid_requests_get_the_documented_error() {
    let simulator = start(options()).await;
    let job = simulator.jobs().next().expect("a job");
    let (store, id) = (&*job.store_id, &*job.id);
    let long = "1".repeat(37);
    let invalid = [
        (400, "ValidationException", format!("/referencestore/{store}/importjob/123456789")),
        (400, "ValidationException", format!("/referencestore/{store}/importjob/{long}")),
        (400, "ValidationException", format!("/referencestore/{store}/importjob/123456789x")),
        (400, "ValidationException", format!("/referencestore/{store}/importjob/")),
        (400, "ValidationException", format!("/referencestore/123%2F456789/importjob/{id}")),
        (404, "ResourceNotFoundException", format!("/referencestore/{store}/importjob/{}", "1".repeat(36))),
        (404, "ResourceNotFoundException", format!("/referencestore/1234567890/importjob/{id}")),
        (404, "UnknownOperationException", format!("/referencestore/{store}")),
        (404, "UnknownOperationException", format!("/referencestore/{store}/importjobs")),
        (404, "UnknownOperationException", "/".to_owned()),
    ];
    for (status, name, path) in invalid {
        assert_eq!(get(&simulator, &path).await.error(), (status, name), "{path}");
    }
    let good = json!({});
    let invalid = [
        ("?maxResults=0", &good),
        ("?maxResults=101", &good),
        ("?maxResults=many", &good),
        ("?nextToken=", &good),
        ("?nextToken=5ca1ab1e", &good),
        ("", &json!({ "filter": { "status": "DONE" } })),
        ("", &json!({ "filter": { "createdAfter": "yesterday" } })),
        ("", &json!("filter")),
    ];
    for (query, body) in invalid {
        assert_eq!(list(&simulator, query, body).await.error(), (400, "ValidationException"), "{query} {body}");
    }
    let mut unsigned = signed(Method::GET, &path(job), "");
    unsigned.headers_mut().remove("authorization");
    let reply = send(&simulator, unsigned).await;
    assert_eq!(reply.error(), (403, "MissingAuthenticationTokenException"));
}

#[tokio::test]
async fn each_kind_is_served_at_its_own_paths_only() {
    let simulator = start(Options { kinds: Kind::ALL.to_vec(), ..options() }).await;
    let paths = ["referencestore/{}/importjob", "sequencestore/{}/importjob", "sequencestore/{}/exportjob"];
    let paths = paths.into_iter().chain(["sequencestore/{}/activationjob"]);
    for (kind, path) in Kind::ALL.into_iter().zip(paths.clone()) {
        let job = simulator.jobs().find(|job| job.kind == kind).expect("a job of each kind");
        for other in paths.clone() {
            let reply = get(&simulator, &format!("/{}/{}", other.replace("{}", &job.store_id), job.id)).await;
            assert_eq!(reply.status, if other == path { 200 } else { 404 }, "{kind:?} at {other}");
        }
    }
}

#[tokio::test]
async fn requests_over_the_quota_are_throttled_until_it_refills() {
    let simulator = start(Options { requests_per_second: 0.5, ..options() }).await;
    let path = path_of_first(&simulator);
    let mut successful = 0;
    let over = async {
        loop {
            let reply = get(&simulator, &path).await;
            if reply.status != 200 {
                return reply;
            }
            successful += 1;
        }
    };
    let over = tokio::time::timeout(DEADLINE, over).await.expect("the quota is used up");
    assert_eq!(over.error(), (429, "ThrottlingException"));
    assert_eq!(list(&simulator, "", &json!({})).await.status, 200, "the other operation has its own quota");
    let mut throttled = 1;
    let recovery = async {
        let clock = Clock::system();
        while get(&simulator, &path).await.status != 200 {
            throttled += 1;
            clock.sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, recovery).await.expect("the quota refills");
    let expected = json!({
        "GetReferenceImportJob": { "answered": successful + 1, "throttled": throttled, "faulted": 0 },
        "ListReferenceImportJobs": { "answered": 1, "throttled": 0, "faulted": 0 },
    });
    assert_eq!(get(&simulator, "/-/calls").await.json(), expected);
}
