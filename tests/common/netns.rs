//! A network namespace of a test's own. Owns its making and its end; the test runs again in it, in a process of its own.
//!
//! Invariant: what a test makes in its namespace goes with it.

use std::env;
use std::process::{self, Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::skip::skip;

/// Set in a process that belongs to one test.
pub const CHILD: &str = "TRAWL_TEST_CHILD";

/// A pair of interfaces on which nothing but the test sends, and that do to frames what a NIC with its offloads off does.
pub const PAIR: &[&str] = &[
    "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
    "ip link set lo up",
    "ip link add trawl0 mtu 9000 type veth peer name peer0 mtu 9000",
    "ethtool -K trawl0 tx off gro off >/dev/null && ethtool -K peer0 tx off >/dev/null",
    "ip link set trawl0 up && ip link set peer0 up",
];

/// Runs the body in a process and a network namespace of its own, after `commands` were run in the namespace.
pub fn alone_in_netns(commands: &[&str], body: impl FnOnce()) {
    if env::var_os(CHILD).is_some() {
        return body();
    }
    let namespace = match Namespace::new() {
        Ok(namespace) => namespace,
        Err(reason) => return skip("network namespaces", reason),
    };
    for command in commands {
        expect_success(namespace.command("sh").args(["-ec", command]).output().unwrap());
    }
    let exe = env::current_exe().unwrap();
    expect_success(
        namespace.command(exe.to_str().unwrap()).args(this_test()).env(CHILD, "1").output().unwrap(),
    );
}

/// Arguments of the test binary that run the calling test alone.
pub fn this_test() -> [String; 3] {
    let name = std::thread::current().name().expect("the harness names its threads after tests").to_owned();
    ["--exact".into(), name, "--nocapture".into()]
}

#[track_caller]
pub fn expect_success(output: Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    print!("{}", text(&output.stdout));
    eprint!("{}", text(&output.stderr));
    assert!(output.status.success(), "{}", output.status);
}

/// Deleted when dropped.
struct Namespace(String);

impl Namespace {
    fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("making a network namespace needs root".into());
        }
        // Under `cargo test` several tests make theirs in one process.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("trawl-test-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let output = Command::new("ip").args(["netns", "add", &name]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("not permitted") {
            return Err(format!("making a network namespace is not permitted here: {said}"));
        }
        assert!(output.status.success(), "{said}");
        Ok(Self(name))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}
