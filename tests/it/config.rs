//! The configuration: every mistake is told with its place and its rule; a good file means what it says.

use std::fs;
use std::path::Path;

use refwatch::config::load;

#[test]
fn exp() {
    let d = tempfile::tempdir().unwrap();
    let path = d.path().join("refwatch.toml");
    for text in [
        "[pol]\nx=1\n[poll]\nintervall = 5\ninterval = 30\nmin_interval = \"0s\"\ntimeout=\"1x\"\nbackoff_initial=\"6m\"\n[quota]\nshare=2\nrequests_per_second=\"5\"",
        "[[job]]\nid = 9876543210\nreference_store_id = \"123\"\n[[job]]\nname=\"\"\n[[job]]\nid=\"1234567890\"\nreference_store_id=\"1234567890\"\ntarget=\"defualt\"\n[[job]]\nid=\"1234567890\"\nreference_store_id=\"1234567890\"\ntarget=\"eu\"\n[target.eu]\nregion=\"us-west2\"\n",
        "[poll\nx=1\n",
        "a = \"x\nlog = { level = \"inf\", format=3, keep_files=-1, rotation = \"weekly\"}\nhttp=[]\n[[record]]\n",
        "log.level = \u{1b}[31m\nlog.level=\"info\"\n",
        "http.listen = \"localhost:1\"\ntarget.default.endpoint_url = \"http://a:b@c/\"\ntarget.default.external_id=\"secret thing\"\n\"\u{202e}\"=1\n",
        "include = [\"a/*/b\", 5, \"c.toml\"]\n[[job]]\nid=\"1234567890\"\nreference_store_id=\"1234567890\"\n[[job]]\nid=\"1234567890\"\nreference_store_id=\"1234567890\"\n",
    ] {
        fs::write(&path, text).unwrap();
        println!("=====\n{text}\n-----");
        match load(&path) {
            Ok(l) => println!("{:?}\n{}", l.problems, l.config.in_force()),
            Err(p) => println!("{p}"),
        }
    }
}
