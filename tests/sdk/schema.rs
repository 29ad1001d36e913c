//! schemathesis against the document that the host serves: no 5xx, no answer that the document does not have.
//!
//! `TRAWL_SCHEMA_SEED` and `TRAWL_SCHEMA_EXAMPLES` try other requests and more of them.

use crate::skip::skip;
use crate::start_with;
use crate::trawl::{ACCOUNT, Setup, TOKEN, Trawl};
use crate::weed::Weed;
use std::path::PathBuf;
use std::process::Command;

const SECONDS_MAX: u32 = 120;

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";

/// Runs the examples that the document and the generator have for it; whatever is answered must be in the document.
async fn run(schemathesis: PathBuf, trawl: &Trawl, token: &str, workers: u32) {
    let folder = tempfile::tempdir().unwrap();
    // Another account than this one is answered with 401 whatever follows, so most requests name this one.
    let config = format!("[parameters]\n\"path.account\" = \"{ACCOUNT}\"\n");
    std::fs::write(folder.path().join("schemathesis.toml"), config).unwrap();
    let number = |name, default| {
        std::env::var(name).map_or(default, |text| text.parse::<u32>().expect("a number in TRAWL_SCHEMA_…"))
    };
    let (seed, examples) = (number("TRAWL_SCHEMA_SEED", 1), number("TRAWL_SCHEMA_EXAMPLES", 10));
    let mut command = Command::new("timeout");
    command
        .args(["-s", "KILL", &(SECONDS_MAX * examples.div_ceil(10)).to_string()])
        .arg(schemathesis)
        .args([
            "run",
            &format!("{}/openapi.json", trawl.url()),
            "--url",
            &format!("{}/client/v4", trawl.url()),
        ])
        .args(["-H", &format!("Authorization: Bearer {token}"), "--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", &examples.to_string(), "--seed", &seed.to_string()])
        .args(["--workers", &workers.to_string(), "--no-color", "--warnings", "off"])
        .args(["--checks", CHECKS])
        .current_dir(folder.path())
        .env("NO_PROXY", "127.0.0.1");
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

fn schemathesis() -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var("TRAWL_TEST_PYTHON").unwrap_or_default());
    let schemathesis = python.with_file_name("schemathesis");
    if !schemathesis.exists() {
        skip("schemathesis", "it is not beside the Python that TRAWL_TEST_PYTHON names");
        return None;
    }
    Some(schemathesis)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_generated_request_gets_a_5xx_or_an_undocumented_answer() {
    let Some(schemathesis) = schemathesis() else { return };
    let Some(weed) = Weed::start().await else { return };
    // It also sends wrong credentials, and with the usual bound the rest would see the lock-out alone.
    let setup = Setup { failed_authentications_max: 1_000_000, history_sample: Some(10), ..Setup::replay() };
    let trawl = start_with(&weed, setup).await;
    run(schemathesis, &trawl, TOKEN, 1).await;
    assert_eq!(trawl.ask("GET", "", &[]).status, 200);
    trawl.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_is_limited_gets_no_undocumented_answer_either_and_an_owner_beside_it_is_let_in() {
    let Some(schemathesis) = schemathesis() else { return };
    let Some(weed) = Weed::start().await else { return };
    let trawl = start_with(&weed, Setup::replay()).await;
    // Each of these answers is held back for a while.
    run(schemathesis, &trawl, "wrong", 8).await;
    let token = [("Authorization", "Bearer wrong")];
    assert_eq!(trawl.ask_as(&token, &format!("/accounts/{ACCOUNT}/pcaps")).status, 429);
    assert_eq!(trawl.ask("GET", "", &[]).status, 200);
    trawl.finish();
}
