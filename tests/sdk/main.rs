//! Cloudflare's own Python SDK, unmodified, against the API over a real socket. `pcaps.py` says what it must get.
//!
//! `TRAWL_TEST_PYTHON` names a Python that has the `cloudflare` package; without one the test says `SKIPPED`.
#![allow(clippy::unwrap_used)] // clippy.toml exempts test functions only, and `engine` is shared

#[path = "../../src/api/tests/engine.rs"]
mod engine;

use engine::Engine;
use sha2::{Digest, Sha256};
use std::process::Command;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use trawl::api::{Accounts, ApiState, Credential, Role, Rules, Secret, router, serve};
use trawl::capture::{self, AccountId};

const ACCOUNT: &str = "023e105f4ecef8ad9ca31a8372d0c353";
const EMAIL: &str = "user@example.com";
const KEY: &str = "a-global-key";

fn python() -> String {
    std::env::var("TRAWL_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

fn has_sdk() -> bool {
    let import = Command::new(python()).args(["-c", "import cloudflare"]).output();
    import.is_ok_and(|output| output.status.success())
}

fn routes(captures: capture::Handle) -> axum::Router {
    let secret = Secret::Key { email: EMAIL.to_owned(), key_sha256: Sha256::digest(KEY).into() };
    let credentials = vec![Credential { secret, role: Role::Write }];
    router(ApiState {
        captures,
        accounts: Accounts::new([(AccountId(ACCOUNT.to_owned()), credentials)]),
        rules: Rules {
            colo: "ord02".to_owned(),
            time_limit_seconds_max: 86_400,
            packet_limit_max: None,
            byte_limit_max: None,
            allow_file: true,
            history: None,
        },
        request_bytes_max: 64 << 10,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_python_sdk_decodes_every_answer() {
    if !has_sdk() {
        println!("SKIPPED: {} has no cloudflare package; set TRAWL_TEST_PYTHON to one that has", python());
        return;
    }
    let engine = Engine::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/client/v4", listener.local_addr().unwrap());
    let (shutdown, asked) = oneshot::channel::<()>();
    let served =
        tokio::spawn(serve(listener, routes(engine.handle.clone()), async move { drop(asked.await) }));

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/pcaps.py");
    let mut command = Command::new(python());
    command.args([script, &base_url, ACCOUNT, EMAIL, KEY, "s3://pcaps-bucket/sdk?region=us-east-1", "ORD"]);
    command.env("NO_PROXY", "127.0.0.1");
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(engine.jobs.lock().unwrap().len(), 2, "a refused create was sent again: {said}");

    shutdown.send(()).unwrap();
    served.await.unwrap();
}
