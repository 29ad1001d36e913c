//! The real binary: help, usage errors, exit codes, files and pipes, `check`, and the client's first error.
#![allow(clippy::unwrap_used)] // clippy.toml exempts test functions, not the helpers of an integration test

mod files;
mod monitoring;
mod package;
mod release;
mod setup;
#[path = "../common/skip.rs"]
#[allow(dead_code, reason = "each test binary that shares this file uses a part of it")]
mod skip;
mod strangers;
mod unit;
mod wait;

use assert_cmd::Command;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// `trawl` with nothing of the caller's environment that it reads.
fn trawl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trawl"));
    for name in ["URL", "ACCOUNT", "TOKEN", "EMAIL", "KEY", "CONFIG", "LOG", "LOG_FORMAT"] {
        command.env_remove(format!("TRAWL_{name}"));
    }
    command.env("COLUMNS", "100").args(arguments);
    command
}

/// Exit code, standard output, standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_command_explains_itself() {
    for words in [
        "",
        "serve",
        "check",
        "capture",
        "capture start",
        "capture list",
        "capture show",
        "capture watch",
        "capture stop",
        "capture download",
        "bucket",
        "bucket add",
        "bucket prove",
        "bucket list",
        "bucket remove",
        "filter test",
        "merge",
        "verify",
        "audit verify",
        "manifest-key",
        "fleet",
        "fleet init",
        "fleet nats-config",
        "fleet key",
        "fleet signing-key",
        "fleet status",
        "fleet hosts",
        "fleet drain",
        "recover",
        "completions",
        "man",
    ] {
        let arguments: Vec<&str> = words.split_whitespace().chain(["--help"]).collect();
        let (code, help, _) = run(&mut trawl(&arguments));
        assert_eq!(code, 0);
        insta::assert_snapshot!(format!("help {words}").trim().replace(' ', "_"), help);
    }
}

#[test]
fn wrong_usage_is_exit_code_2_with_what_to_write() {
    for (arguments, part) in [
        (&["chek"][..], "check"),
        (&["capture", "start"][..], "--time-limit"),
        (&["capture", "start", "--time-limit", "5"][..], "--colo-name"),
        (&["capture", "start", "--time-limit", "5", "--type", "simple"][..], "--packet-limit"),
        (
            &["capture", "start", "--time-limit", "5", "--filter-v1", "{}", "--protocol", "tcp"][..],
            "cannot be used with",
        ),
        (&["capture", "list"][..], "TRAWL_ACCOUNT"),
        (&["capture", "list", "--account", "a"][..], "TRAWL_TOKEN"),
        (&["merge", "-o", "x"][..], "IN"),
    ] {
        let (code, _, error) = run(&mut trawl(arguments));
        assert_eq!(code, 2, "{arguments:?}: {error}");
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
}

#[test]
fn no_server_is_exit_code_1_and_says_how_to_start_one() {
    let mut command = trawl(&["capture", "list", "--account", "a", "--url", "http://127.0.0.1:1/client/v4"]);
    let (code, out, error) = run(command.env("TRAWL_TOKEN", "t"));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.contains("trawl serve --config"), "{error}");
}

#[test]
fn the_environment_names_server_and_account() {
    let mut command = trawl(&["capture", "list"]);
    command.env("TRAWL_ACCOUNT", "a").env("TRAWL_EMAIL", "a@b").env("TRAWL_KEY", "k");
    let (code, _, error) = run(command.env("TRAWL_URL", "http://127.0.0.1:1"));
    assert!(code == 1 && error.contains("no server at http://127.0.0.1:1"), "{error}");
}

fn config(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("trawl.toml");
    std::fs::write(&path, text).unwrap();
    // It holds hashes of credentials, so `check` warns if everybody can read it.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    path
}

/// A config that suits any host with two cores.
fn sound(dir: &Path) -> String {
    let shown = dir.display();
    format!(
        "[dpdk]\neal = [\"--no-pci\", \"--no-huge\"]\n[blocks]\nhugepages = \"never\"\n[[port]]\ndevice = \"net_null0\"\n\
         [spool]\ndir = \"{shown}/spool\"\nbytes_max = \"8MiB\"\nsegment_bytes = \"4MiB\"\n\
         [store]\npath = \"{shown}/trawl.db\"\n[api]\nlisten = \"127.0.0.1:0\"\n\
         [[account]]\nid = \"a\"\n[[account.credential]]\ntoken_sha256 = \"{:064}\"\n",
        0
    )
}

#[test]
fn check_passes_a_sound_config_and_fails_on_everything_else_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), &sound(dir.path()));
    let path = path.to_str().unwrap();
    let (code, out, error) = run(&mut trawl(&["check", "--config", path]));
    assert_eq!(code, 0, "{out}{error}");
    assert!(out.ends_with("the config and this host are ready\n"), "{out}");

    let wrong =
        sound(dir.path()).replace("net_null0", "net_pcap0,rx_pcap=/nowhere.pcap").replace("8MiB", "8 megs");
    config(dir.path(), &format!("{wrong}[cores]\nworkers = [1000]\n"));
    let (code, out, _) = run(&mut trawl(&["check", "--config", path]));
    assert_eq!(code, 1, "{out}");
    for part in
        ["spool.bytes_max", "cores.workers: core 1000", "/nowhere.pcap", "not ready: 3 errors, 0 warnings"]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (code, out, _) = run(&mut trawl(&["check", "--json", "--config", path]));
    let findings: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 1);
    assert!(findings.as_array().unwrap().iter().all(|finding| finding["advice"].is_string()), "{out}");
}

#[test]
fn check_without_a_file_says_which() {
    let (code, out, _) = run(&mut trawl(&["check", "--config", "/nowhere.toml"]));
    assert!(code == 1 && out.contains("/nowhere.toml"), "{out}");
}

#[test]
fn serve_refuses_a_wrong_config_with_everything_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "[host]\nid = \"A b\"\n[log]\nlevel = 3\n");
    let (code, _, error) = run(&mut trawl(&["serve", "--config", path.to_str().unwrap()]));
    assert_eq!(code, 1);
    for part in ["3 problems", "host.id = \"A b\"", "log.level = 3", "port is missing", "trawl check"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn completions_and_man_pages_come_from_the_commands_themselves() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = run(&mut trawl(&["completions", shell]));
        assert!(code == 0 && out.contains("destination-conf") && out.contains("completions"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let (code, out, error) = run(&mut trawl(&["man", pages.to_str().unwrap()]));
    assert_eq!(code, 0, "{error}");
    let page = std::fs::read_to_string(pages.join("trawl-capture-start.1")).unwrap();
    assert!(page.contains("packet") && out.contains("pages"), "{out}");
}

#[test]
fn a_secret_in_the_arguments_is_refused_and_not_repeated() {
    let uri = "r2://b?account-id=a&access-key-id=k&secret-access-key=hush";
    let (code, out, error) = run(&mut trawl(&["bucket", "add", uri, "--account", "a"]));
    assert!(code == 2 && error.contains("--r2-key-file"), "{error}");
    assert!(!format!("{out}{error}").contains("hush"), "{error}");
}
