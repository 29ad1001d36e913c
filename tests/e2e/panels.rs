//! The dashboard of `monitoring/` with a real Prometheus that scrapes a real run: a panel that shows nothing is wrong.

use crate::inherit;
use crate::skip::skip;
use crate::trawl::{Setup, free_address};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// A Prometheus that is gone when the value is dropped.
struct Prometheus {
    process: Child,
    listen: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// None where it is not installed.
    fn start(scrapes: SocketAddr) -> Option<Self> {
        Command::new("prometheus")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .ok()?;
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: trawl, static_configs: [{{targets: ['{scrapes}']}}]}}]\n"
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let listen = free_address();
        let process = inherit::program("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={listen}"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Some(Self { process, listen, _dir: dir })
    }

    /// How many series a query has now; none while Prometheus does not answer.
    fn series(&self, query: &str) -> Option<usize> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut stream = TcpStream::connect(self.listen).ok()?;
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        // Of an answer by HTTP/1.0 everything behind the head is the body.
        write!(stream, "GET /api/v1/query?query={encoded} HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        assert!(head.contains(" 200 ") || head.contains(" 503 "), "{query}: {text}");
        let answer: Value = serde_json::from_str(body).ok()?;
        answer["data"]["result"].as_array().map(Vec::len)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

#[test]
fn every_panel_shows_something_of_a_host_that_captures() {
    let observe = free_address();
    let trawl =
        Setup::replay().start_with(|config, _| config + &format!("[observe]\nlisten = \"{observe}\"\n"));
    let Some(prometheus) = Prometheus::start(observe) else {
        return skip("prometheus", "scripts/install-deps.sh brings it");
    };
    let id = trawl.create(&trawl.request(json!({"protocol": 17, "destination_port": 53})));
    let dashboard: Value = serde_json::from_str(include_str!("../../monitoring/dashboard.json")).unwrap();
    let mut waiting = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"]
                .as_str()
                .unwrap()
                .replace("$__rate_interval", "10s")
                .replace("$instance", ".*");
            waiting.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    assert!(waiting.len() > 40);
    let deadline = Instant::now() + LIMIT;
    while !waiting.is_empty() {
        waiting.retain(|(_, query)| prometheus.series(query).is_none_or(|series| series == 0));
        assert!(Instant::now() < deadline, "empty: {waiting:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
    trawl.ended(&id);
    trawl.finish();
}
