//! Fault 144: the host names that requests may use.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use crate::process::Workspace;

fn response(address: SocketAddr, host: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).expect("a listener");
    write!(stream, "GET /-/healthy HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("a reader");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    response
}

#[test]
fn fault_144_only_the_names_of_this_machine_and_configured_hosts_are_accepted() {
    let workspace = Workspace::new();
    let configuration = |listen: &str| {
        format!(
            "[database]\npath = \"refwatch.db\"\n[http]\nlisten = \"{listen}\"\n\
             external_url = \"https://ops.lab.example:8443/refwatch/\"\nallowed_hosts = [\"Refwatch.lab.example\", \"refwatch_1\"]\n"
        )
    };
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let bare = name.split('.').next().expect("a name");
    for listen in ["0.0.0.0:0", "127.0.0.1:0"] {
        let file = workspace.write("refwatch.toml", &configuration(listen));
        let (_daemon, address) = workspace.daemon(&file);
        for host in
            ["ops.lab.example", "OPS.lab.example:80", "refwatch.lab.example", "refwatch.lab.example.:1", "refwatch_1"]
        {
            let response = response(address, host);
            assert!(response.starts_with("HTTP/1.1 200"), "{host}: {response}");
        }
        for host in [&name, bare] {
            let expected = if listen.starts_with("127") { "HTTP/1.1 421" } else { "HTTP/1.1 200" };
            let response = response(address, host);
            assert!(response.starts_with(expected), "{host}: {response}");
        }
        for host in [
            &format!("{bare}.evil.example"),
            &format!("{name}.evil.example"),
            "lab.example",
            "evil.ops.lab.example",
            "refwatch.lab.example.evil.example",
            "refwatch.lab.example..",
        ] {
            let response = response(address, host);
            assert!(
                response.starts_with("HTTP/1.1 421") && response.contains("allowed_hosts in [http]"),
                "{host}: {response}"
            );
        }
    }
}
