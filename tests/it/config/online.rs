//! `refwatch check --online` against the simulator and an STS stand-in: identity and permissions with one request each.

use std::net::TcpListener;
use std::process::Command;

use crate::process::{Workspace, between, json, serve_sts, sts_response};

const UNKNOWN: &str =
    "default, us-west-2: identity unknown: the endpoint is not AWS's: set AWS_ENDPOINT_URL_STS to query STS";

/// Runs `check --online`. Returns the status and standard output. Checks that no secret is printed.
fn check(workspace: &Workspace, config: &str, configure: impl FnOnce(&mut Command)) -> (i32, String) {
    let path = workspace.write("refwatch.toml", config);
    let mut command = workspace.refwatch(&["--config", path.to_str().expect("text"), "check", "--online"]);
    configure(&mut command);
    let mut process = workspace.spawn(command);
    let status = process.end().code().expect("an exit status");
    let (lines, error) = (process.rest(), process.stderr());
    assert!(lines.last().expect("a summary").contains("no problems"), "{lines:?} {error}");
    for secret in ["verysecretkey", "rolesecret", "roletoken", "our-external-id"] {
        assert!(!lines.concat().contains(secret) && !error.contains(secret), "{secret} in {lines:?} {error}");
    }
    (status, lines.join("\n"))
}

/// The rows of the printed table.
fn rows(shown: &str) -> Vec<Vec<&str>> {
    let table = shown.lines().skip_while(|line| !line.starts_with("TARGET")).skip(1);
    let table = table.filter(|line| !line.contains("no problems"));
    table.map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect()
}

/// A configuration with an endpoint and a watch list.
fn config(endpoint_url: &str, watches: &str) -> String {
    format!("[target.default]\nregion = \"us-west-2\"\nendpoint_url = \"{endpoint_url}\"\n{watches}")
}

#[test]
fn permissions_are_checked_with_one_request_per_operation_and_store() {
    let workspace = Workspace::new();
    let (_simulator, address, simulated) = workspace.simulate(&["--jobs", "6"]);
    let store = between(&simulated, "reference_store_id = \"", "\"").to_owned();
    let (status, shown) = check(&workspace, &simulated, |_| ());
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
fn the_endpoint_may_come_from_the_environment() {
    let workspace = Workspace::new();
    let (_simulator, address, simulated) = workspace.simulate(&["--jobs", "1"]);
    let config = simulated.replace(&format!("endpoint_url = \"http://{address}\"\n"), "");
    let (status, shown) = check(&workspace, &config, |command| {
        command.env("AWS_ENDPOINT_URL_OMICS", format!("http://{address}"));
    });
    assert_eq!(status, 0, "{shown}");
    assert!(shown.starts_with(UNKNOWN) && rows(&shown).iter().all(|row| row[3] == "allowed"), "{shown}");
}

#[test]
fn sts_returns_the_identity_of_the_assumed_role() {
    let workspace = Workspace::new();
    let (_simulator, _, simulated) = workspace.simulate(&["--jobs", "1"]);
    let role = "role_arn = \"arn:aws:iam::123456789012:role/refwatch\"\nexternal_id = \"our-external-id\"\n";
    let config = simulated.replace("endpoint_url", &format!("{role}endpoint_url"));
    let credentials = "<Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>rolesecret</SecretAccessKey>\
        <SessionToken>roletoken</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>";
    let identity = "<Arn>arn:aws:sts::123456789012:assumed-role/refwatch/refwatch</Arn><UserId>A:r</UserId><Account>123456789012</Account>";
    // The role is assumed once for both requests.
    let responses = vec![sts_response("AssumeRole", credentials), sts_response("GetCallerIdentity", identity)];
    let (sts, requests) = serve_sts(responses);
    let (status, shown) = check(&workspace, &config, |command| {
        command.env("AWS_ENDPOINT_URL_STS", sts);
    });
    assert_eq!(status, 0, "{shown}");
    let expected =
        "default, us-west-2: arn:aws:sts::123456789012:assumed-role/refwatch/refwatch, account 123456789012\n";
    assert!(shown.starts_with(expected), "{shown}");
    let request = requests.iter().last().expect("a request");
    assert!(request.contains("Action=GetCallerIdentity") && request.contains("ASIAROLE/"), "{request}");
}

#[test]
fn denied_listing_fails_the_check_only_if_a_store_is_watched() {
    let workspace = Workspace::new();
    let (_simulator, _, simulated) = workspace.simulate(&["--jobs", "2", "--fault", "list_denied=1"]);
    let store = between(&simulated, "reference_store_id = \"", "\"").to_owned();
    let (status, shown) = check(&workspace, &simulated, |_| ());
    assert_eq!(status, 0, "jobs can be polled one by one: {shown}");
    assert!(shown.contains("access denied: AccessDeniedException: "), "{shown}");
    assert!(shown.contains("its jobs are polled one by one instead"), "{shown}");

    let with_store = format!("{simulated}\n[[store]]\nreference_store_id = \"{store}\"\n");
    let (status, shown) = check(&workspace, &with_store, |_| ());
    assert_eq!(status, 1, "{shown}");
    assert!(!shown.contains("instead"), "{shown}");
}

#[test]
fn denied_missing_and_unreachable_are_distinguished_and_fail() {
    let workspace = Workspace::new();
    let (_simulator, address, simulated) = workspace.simulate(&["--jobs", "1"]);
    let other_workspace = Workspace::new();
    let (_denying, _, denied) = other_workspace.simulate(&["--jobs", "1", "--fault", "access_denied=1"]);
    let (status, shown) = check(&workspace, &denied, |_| ());
    assert_eq!(status, 1, "{shown}");
    assert!(rows(&shown).iter().all(|row| row[3].starts_with("access denied: AccessDeniedException")), "{shown}");
    assert!(shown.ends_with("no problems, 1 missing permission"), "a denied listing is not needed: {shown}");

    let unknown_store = "[[store]]\nreference_store_id = \"0000000000\"\n";
    let (status, shown) = check(&workspace, &config(&format!("http://{address}"), unknown_store), |_| ());
    assert_eq!(status, 1, "{shown}");
    assert!(rows(&shown).iter().all(|row| row[3].starts_with("not found: ResourceNotFoundException")), "{shown}");

    let unused = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let watches = simulated.split_once("[[job]]").expect("a job").1;
    let unreachable = config(&format!("http://{unused}"), &format!("[[job]]{watches}"));
    let (status, shown) = check(&workspace, &unreachable, |_| ());
    assert_eq!(status, 1, "{shown}");
    assert!(rows(&shown).iter().all(|row| row[3].starts_with("no connection: ")), "{shown}");
    assert!(shown.ends_with("no problems, 1 failed request"), "{shown}");
}

#[test]
fn a_silent_service_fails_at_the_deadline_and_a_missing_region_is_reported() {
    let workspace = Workspace::new();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let two = "[poll]\ntimeout = \"1s\"\n[[store]]\nreference_store_id = \"1234567890\"\n[[store]]\nreference_store_id = \"1234567891\"\n";
    let (status, shown) = check(&workspace, &config(&url, two), |_| ());
    assert_eq!(status, 1, "{shown}");
    assert_eq!(shown.matches("no response in time: no complete response within 1s").count(), 4, "{shown}");

    let (status, shown) = check(&workspace, &config(&url, "[target.unused]\n"), |_| ());
    assert_eq!(status, 1, "{shown}");
    assert!(shown.contains("unused: target \"unused\" has no AWS region"), "{shown}");
}
