//! A time-stamping authority for tests: `openssl ts` behind a socket, with a CA of its own. Owns its answers and its misfortunes.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const CONFIG: &str = "
[tsa]
default_tsa = one
[one]
serial = serial
crypto_device = builtin
signer_cert = tsa.pem
certs = ca.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1, millisecs:500
clock_precision_digits = 3
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
ess_cert_id_alg = sha256
[usage]
extendedKeyUsage = critical,timeStamping
keyUsage = critical,digitalSignature
[other]
extendedKeyUsage = serverAuth
";

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    /// A right answer.
    Right,
    /// The connection is closed.
    Gone,
    /// `503`.
    Busy,
    /// `302` to another address.
    Elsewhere(String),
    /// These bytes.
    Says(Vec<u8>),
    /// The first right answer that was given, whatever is asked.
    Again,
}

/// See the module.
pub struct Tsa {
    dir: TempDir,
    address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<AtomicUsize>,
}

fn openssl(dir: &Path, arguments: &str) -> Result<(), String> {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

impl Tsa {
    /// One with a key of that kind, `rsa:2048` or `ec`; none, with the reason, where there is no `openssl`.
    pub fn start(key: &str) -> Result<Self, String> {
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tsa.cnf"), CONFIG).unwrap();
        fs::write(dir.path().join("serial"), "01\n").unwrap();
        let ec = "ec -pkeyopt ec_paramgen_curve:P-256";
        let key = if key == "ec" { ec } else { key };
        openssl(
            dir.path(),
            &format!("req -x509 -newkey {ec} -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=TestCA"),
        )?;
        openssl(
            dir.path(),
            &format!("req -newkey {key} -nodes -keyout tsa.key -out tsa.csr -subj /CN=TestTSA"),
        )?;
        let sign = "x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile tsa.cnf -extensions usage";
        openssl(dir.path(), &format!("{sign} -out tsa.pem"))?;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (mood, asked) = (Arc::new(Mutex::new(Mood::Right)), Arc::new(AtomicUsize::new(0)));
        let (place, its_mood, its_asked) = (dir.path().to_owned(), Arc::clone(&mood), Arc::clone(&asked));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                its_asked.fetch_add(1, SeqCst);
                let mood = its_mood.lock().unwrap().clone();
                let _gone = answer(stream, &place, &mood);
            }
        });
        Ok(Self { dir, address, mood, asked })
    }

    pub fn url(&self) -> String {
        format!("http://{}/tsr", self.address)
    }

    /// The certificate that vouches for it.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Connections so far.
    pub fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    /// What `openssl ts -verify` says of an answer in a file to the bytes of another one.
    pub fn verifies(&self, data: &Path, answer: &Path) -> Result<(), String> {
        let output = Command::new("openssl")
            .args(["ts", "-verify", "-CAfile", "ca.pem", "-untrusted", "tsa.pem", "-data"])
            .arg(data)
            .arg("-in")
            .arg(answer)
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

fn answer(mut stream: TcpStream, dir: &Path, mood: &Mood) -> std::io::Result<()> {
    // All of it, also for an answer that does not depend on it: a connection that is closed with bytes unread is reset.
    let query = if *mood == Mood::Gone { Vec::new() } else { request(&mut stream)? };
    let body = match mood {
        Mood::Gone => return Ok(()),
        Mood::Busy => {
            return stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
        Mood::Elsewhere(url) => {
            let head = format!(
                "HTTP/1.1 302 Found\r\nlocation: {url}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            return stream.write_all(head.as_bytes());
        }
        Mood::Says(bytes) => bytes.clone(),
        Mood::Again => fs::read(dir.join("first.tsr"))?,
        Mood::Right => {
            fs::write(dir.join("query.tsq"), query)?;
            openssl(dir, "ts -reply -config tsa.cnf -queryfile query.tsq -out answer.tsr")
                .map_err(std::io::Error::other)?;
            if !dir.join("first.tsr").exists() {
                fs::copy(dir.join("answer.tsr"), dir.join("first.tsr"))?;
            }
            fs::read(dir.join("answer.tsr"))?
        }
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/timestamp-reply\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

/// The body of a request.
fn request(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let len = stream.read(&mut piece)?;
        whole.extend_from_slice(&piece[..len]);
        let Some(head) = whole.windows(4).position(|four| four == b"\r\n\r\n") else {
            if len == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            continue;
        };
        let text = String::from_utf8_lossy(&whole[..head]).to_ascii_lowercase();
        let bytes = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        let end = head + 4 + bytes.unwrap_or(0);
        if whole.len() >= end {
            return Ok(whole[head + 4..end].to_vec());
        }
    }
}
