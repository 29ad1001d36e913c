//! Every method through both SDKs. Owns the talk with the scripts: a script prints `READ key`, and gets that object's content.

use crate::skip::skip;
use crate::trawl::{ACCOUNT, EMAIL, KEY, Setup, Trawl};
use crate::weed::Weed;
use crate::{BUCKET, read_object, start, start_with};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/");

/// Runs a script to its end; it must succeed.
async fn run(mut command: Command, trawl: &Trawl, weed: &Weed) {
    command
        .args([&format!("{}/client/v4", trawl.url()), ACCOUNT, EMAIL, KEY, BUCKET, "ORD"])
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut script = command.spawn().unwrap();
    let mut input = script.stdin.take().unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(script.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(key) = line.strip_prefix("READ ") {
            writeln!(input, "{}", read_object(weed, key).await).unwrap();
        }
        said.push(line);
    }
    assert!(script.wait().unwrap().success(), "{said:#?}");
    assert_eq!(said.last().map(String::as_str), Some("DONE"), "{said:#?}");
}

/// A Python that has the SDK.
fn python() -> Option<String> {
    let python = std::env::var("TRAWL_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let import = Command::new(&python).args(["-c", "import cloudflare"]).output();
    if !import.is_ok_and(|output| output.status.success()) {
        skip(
            "cloudflare for Python",
            format!("{python} has no such package; TRAWL_TEST_PYTHON names one that has"),
        );
        return None;
    }
    Some(python)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_back_through_the_python_sdk_shows_an_account_its_own_packets_alone() {
    let Some(python) = python() else { return };
    let Some(weed) = Weed::start().await else { return };
    let setup = Setup { history_sample: Some(1000), prefixes: "[\"192.0.2.128/25\"]", ..Setup::replay() };
    let trawl = start_with(&weed, setup).await;
    let mut command = Command::new(python);
    command.arg(format!("{FOLDER}history.py"));
    run(command, &trawl, &weed).await;
    trawl.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_sdk_drives_every_method_and_decodes_every_answer_strictly() {
    let Some(python) = python() else { return };
    let Some(weed) = Weed::start().await else { return };
    let trawl = start(&weed, 60).await;
    let mut command = Command::new(python);
    command.arg(format!("{FOLDER}pcaps.py"));
    run(command, &trawl, &weed).await;
    trawl.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_typescript_sdk_drives_every_method() {
    let modules = std::env::var("TRAWL_TEST_NODE_MODULES").unwrap_or_default();
    let installed = std::path::Path::new(&modules).join("node_modules/cloudflare/package.json").exists();
    if !installed || Command::new("node").arg("--version").output().is_err() {
        return skip("cloudflare for Node.js", "TRAWL_TEST_NODE_MODULES names npm's folder");
    }
    let Some(weed) = Weed::start().await else { return };
    let trawl = start(&weed, 60).await;
    let mut command = Command::new("node");
    command.arg(format!("{FOLDER}pcaps.mjs"));
    run(command, &trawl, &weed).await;
    trawl.finish();
}
