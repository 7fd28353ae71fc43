//! `refwatch check --online` against the simulator and an STS of our own: who the credentials are, what they may do, one request
//! each.

use std::net::TcpListener;
use std::process::Command;

use crate::process::{Scene, between, json, serve_sts, sts_answer};

const UNKNOWN: &str = "default, us-west-2: who the credentials are is not known: its endpoint is not AWS's, and AWS_ENDPOINT_URL_STS \
                       names no STS to ask";

/// The status of `check --online` on a configuration, and what it prints to standard output without its first line. No secret is in it.
fn check(scene: &Scene, config: &str, setting: impl FnOnce(&mut Command)) -> (i32, String) {
    let path = scene.write("refwatch.toml", config);
    let mut command = scene.refwatch(&["--config", path.to_str().expect("text"), "check", "--online"]);
    setting(&mut command);
    let mut process = scene.spawn(command);
    let status = process.end().code().expect("an exit status");
    let (lines, said) = (process.rest(), process.stderr());
    assert!(lines[0].ends_with("no problems"), "{lines:?} {said}");
    for secret in ["verysecretkey", "rolesecret", "roletoken", "our-external-id"] {
        assert!(!lines.concat().contains(secret) && !said.contains(secret), "{secret} in {lines:?} {said}");
    }
    (status, lines[1..].join("\n"))
}

/// The lines of the table, each with its columns.
fn rows(shown: &str) -> Vec<Vec<&str>> {
    let table = shown.lines().skip_while(|line| !line.starts_with("TARGET")).skip(1);
    table.map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect()
}

/// A watch list on an endpoint.
fn config(endpoint_url: &str, watches: &str) -> String {
    format!("[target.default]\nregion = \"us-west-2\"\nendpoint_url = \"{endpoint_url}\"\n{watches}")
}

#[test]
fn what_is_allowed_is_told_after_one_request_of_each_operation_for_each_store() {
    let scene = Scene::new();
    let (_simulator, address, simulated) = scene.simulate(&["--jobs", "6"]);
    let store = between(&simulated, "reference_store_id = \"", "\"").to_owned();
    let (status, shown) = check(&scene, &simulated, |_| ());
    assert_eq!(status, 0, "{shown}");
    assert!(shown.starts_with(UNKNOWN), "{shown}");
    let get = ["default", &store, "GetReferenceImportJob", "allowed"];
    let list = ["default", &store, "ListReferenceImportJobs", "allowed"];
    assert_eq!(rows(&shown), [get, list], "{shown}");
    let calls = json(address, "/-/calls");
    assert_eq!(calls["GetReferenceImportJob"]["answered"], 1, "{calls}");
    assert_eq!(calls["ListReferenceImportJobs"]["answered"], 1, "{calls}");
}

#[test]
fn sts_says_who_the_credentials_are_and_of_a_role_who_assumed_it() {
    let scene = Scene::new();
    let (_simulator, _, simulated) = scene.simulate(&["--jobs", "1"]);
    let role = "role_arn = \"arn:aws:iam::123456789012:role/refwatch\"\nexternal_id = \"our-external-id\"\n";
    let config = simulated.replace("endpoint_url", &format!("{role}endpoint_url"));
    let credentials = "<Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>rolesecret</SecretAccessKey>\
        <SessionToken>roletoken</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>";
    let identity = "<Arn>arn:aws:sts::123456789012:assumed-role/refwatch/refwatch</Arn><UserId>A:r</UserId><Account>123456789012</Account>";
    // One role for both that are asked with it.
    let answers = vec![sts_answer("AssumeRole", credentials), sts_answer("GetCallerIdentity", identity)];
    let (sts, requests) = serve_sts(answers);
    let (status, shown) = check(&scene, &config, |command| {
        command.env("AWS_ENDPOINT_URL_STS", sts);
    });
    assert_eq!(status, 0, "{shown}");
    let who = "default, us-west-2: arn:aws:sts::123456789012:assumed-role/refwatch/refwatch, account 123456789012\n";
    assert!(shown.starts_with(who), "{shown}");
    let request = requests.iter().last().expect("a request");
    assert!(request.contains("Action=GetCallerIdentity") && request.contains("ASIAROLE/"), "{request}");
}

#[test]
fn a_listing_that_is_denied_counts_where_a_store_is_watched() {
    let scene = Scene::new();
    let (_simulator, _, simulated) = scene.simulate(&["--jobs", "2", "--fault", "list_denied=1"]);
    let store = between(&simulated, "reference_store_id = \"", "\"").to_owned();
    let (status, shown) = check(&scene, &simulated, |_| ());
    assert_eq!(status, 0, "jobs can be polled one by one: {shown}");
    assert!(shown.contains("access denied: AccessDeniedException: "), "{shown}");
    assert!(shown.contains("its jobs are polled one by one instead"), "{shown}");

    let with_store = format!("{simulated}\n[[store]]\nreference_store_id = \"{store}\"\n");
    let (status, shown) = check(&scene, &with_store, |_| ());
    assert_eq!(status, 1, "{shown}");
    assert!(!shown.contains("instead"), "{shown}");
}

#[test]
fn what_is_denied_not_found_or_unreachable_is_told_apart_and_fails() {
    let scene = Scene::new();
    let (_simulator, address, simulated) = scene.simulate(&["--jobs", "1"]);
    let elsewhere = Scene::new();
    let (_denying, _, denied) = elsewhere.simulate(&["--jobs", "1", "--fault", "access_denied=1"]);
    let (status, shown) = check(&scene, &denied, |_| ());
    assert_eq!(status, 1, "{shown}");
    assert!(rows(&shown).iter().all(|row| row[3].starts_with("access denied: AccessDeniedException")), "{shown}");

    let unknown_store = "[[store]]\nreference_store_id = \"0000000000\"\n";
    let (status, shown) = check(&scene, &config(&format!("http://{address}"), unknown_store), |_| ());
    assert_eq!(status, 1, "{shown}");
    assert!(rows(&shown).iter().all(|row| row[3].starts_with("not found: ResourceNotFoundException")), "{shown}");

    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let watches = simulated.split_once("[[job]]").expect("a job").1;
    let unreachable = config(&format!("http://{nobody}"), &format!("[[job]]{watches}"));
    let (status, shown) = check(&scene, &unreachable, |_| ());
    assert_eq!(status, 1, "{shown}");
    assert!(rows(&shown).iter().all(|row| row[3].starts_with("no connection: ")), "{shown}");
}

#[test]
fn a_silent_service_ends_at_the_deadline_and_no_region_is_told() {
    let scene = Scene::new();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let two = "[poll]\ntimeout = \"1s\"\n[[store]]\nreference_store_id = \"1234567890\"\n[[store]]\nreference_store_id = \"1234567891\"\n";
    let (status, shown) = check(&scene, &config(&url, two), |_| ());
    assert_eq!(status, 1, "{shown}");
    assert_eq!(shown.matches("no answer in time: no whole answer before poll.timeout").count(), 4, "{shown}");

    let no_region =
        config(&url, "[[store]]\nreference_store_id = \"1234567890\"\n").replace("region = \"us-west-2\"\n", "");
    let (status, shown) = check(&scene, &no_region, |_| ());
    assert_eq!(status, 1, "{shown}");
    assert!(shown.starts_with("default: target \"default\" has no AWS region"), "{shown}");
}
