//! The host that is attacked: its accounts, the store behind it, and how each account asks it. Owns no attack and no expectation.
//!
//! Each account has an address of its own in 127.0.0.0/8, so it is a peer of its own; strangers have others.

use crate::bucket::{BUCKET, credentials};
use crate::http::{self, Answer};
use crate::openmetrics::{self, Families};
use crate::proxy::{Fault, Proxy};
use crate::trawl::{ACCOUNT, OTHER_ACCOUNT, OTHER_TOKEN, Setup, TOKEN, Trawl, free_address};
use crate::weed::Weed;
use serde_json::Value;
use sha2::{Digest, Sha256};
use socket2::{Domain, Socket, Type};
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// Objects of captures in the attackers' directory: a probe of it succeeds, and nothing is ever delivered there.
const THEIR_OBJECTS: &[&str] = &["/pcaps-bucket/his/pcap_"];

/// Connections of the API: an eighth, 32, are one peer's; a quarter of them, or 6 with twenty accounts, one account's.
pub const CONNECTIONS_MAX: usize = 256;

/// Of one account; the victim asks less.
const REQUESTS_PER_SECOND_MAX: u32 = 200;

/// An account that attacks.
pub struct Account {
    pub id: String,
    pub token: String,
    /// Where it asks from.
    pub from: Ipv4Addr,
}

/// See the module.
pub struct Host {
    /// Written while it restarts: a reader meets a host that is there.
    trawl: RwLock<Trawl>,
    pub listen: SocketAddr,
    pub observe: SocketAddr,
    pub attackers: Vec<Account>,
    /// Of the victim's captures.
    pub destination: String,
    pub weed: Option<Weed>,
    /// The counts of the process before the restart.
    before: Mutex<Vec<Families>>,
    _proxy: Option<Proxy>,
}

impl Host {
    pub async fn with_store(setup: Setup, accounts: usize, fault: Fault) -> Option<Self> {
        let weed = Weed::start().await?;
        weed.create_bucket(BUCKET).await;
        let proxy = Proxy::start(&weed.endpoint, THEIR_OBJECTS, fault, u32::MAX).await;
        let setup = Setup { endpoint: Some(proxy.endpoint.clone()), environment: credentials(), ..setup };
        let mut host = Self::without_store(setup, accounts);
        host.destination = format!("s3://{BUCKET}/victim?region=us-east-1");
        (host.weed, host._proxy) = (Some(weed), Some(proxy));
        Some(host)
    }

    pub fn without_store(setup: Setup, accounts: usize) -> Self {
        let observe = free_address();
        let mut more = format!("[observe]\nlisten = \"{observe}\"\n");
        // The victim and the first attacker are in every test's config.
        let mut attackers = vec![Account {
            id: OTHER_ACCOUNT.to_owned(),
            token: OTHER_TOKEN.to_owned(),
            from: Ipv4Addr::new(127, 0, 1, 0),
        }];
        for number in 1..accounts as u8 - 1 {
            let (id, token) = (format!("attacker-{number}"), format!("token-of-{number}"));
            let hash = Sha256::digest(&token).iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap();
                text
            });
            write!(more, "[[account]]\nid = \"{id}\"\n[[account.credential]]\ntoken_sha256 = \"{hash}\"\n")
                .unwrap();
            attackers.push(Account { id, token, from: Ipv4Addr::new(127, 0, 1, number) });
        }
        let api = format!(
            "[api]\nconnections_max = {CONNECTIONS_MAX}\nrequests_per_second_max = {REQUESTS_PER_SECOND_MAX}\n"
        );
        let trawl = Setup { more, ..setup }.start_with(|config, _| config.replacen("[api]\n", &api, 1));
        let destination = format!("file://{}", trawl.bucket().display());
        Self {
            listen: trawl.listen(),
            trawl: RwLock::new(trawl),
            observe,
            attackers,
            destination,
            weed: None,
            before: Mutex::default(),
            _proxy: None,
        }
    }

    /// The host, which does not restart for as long as this is held.
    pub fn trawl(&self) -> RwLockReadGuard<'_, Trawl> {
        self.trawl.read().unwrap()
    }

    /// The same, to restart it.
    pub fn trawl_alone(&self) -> RwLockWriteGuard<'_, Trawl> {
        self.trawl.write().unwrap()
    }

    /// The victim asks. Only a host that restarts fails to answer, and then nobody asks.
    #[track_caller]
    pub fn ask_as_victim(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let path = format!("/client/v4/accounts/{ACCOUNT}/pcaps{path}");
        let token = format!("Bearer {TOKEN}");
        let answer = http::ask(self.listen, method, &path, &[("Authorization", &token)], body);
        answer.unwrap_or_else(|error| panic!("the victim's {method} {path}: {error}"))
    }

    /// An attacker asks; nothing if the host is just not there, or has ended the connection.
    pub fn ask_as(&self, account: &Account, method: &str, path: &str, body: &Value) -> Option<Answer> {
        let stream = connect(account.from, self.listen).ok()?;
        let path = format!("/client/v4/accounts/{}/pcaps{path}", account.id);
        let token = format!("Bearer {}", account.token);
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        http::ask_over(stream, method, &path, &[("Authorization", &token)], &body).ok()
    }

    fn metrics(&self) -> Families {
        let text = http::get_text(self.observe, "/metrics").unwrap();
        openmetrics::parse(text.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// The process is about to end, and its counts with it.
    pub fn ends(&self) {
        self.before.lock().unwrap().push(self.metrics());
    }

    /// Connections that the host has ended for that reason, before and after its restart.
    pub fn cut(&self, reason: &str) -> u64 {
        let (before, now) = (self.before.lock().unwrap(), self.metrics());
        let count = |metrics: &Families| metrics.sum("trawl_connections_cut", &[("reason", reason)]);
        before.iter().chain([&now]).map(count).sum()
    }

    pub fn finish(self) {
        self.trawl.into_inner().unwrap().finish();
    }
}

/// A connection of that peer.
pub fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_millis(50)))?;
    Ok(stream)
}
