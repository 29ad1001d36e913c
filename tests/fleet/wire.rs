//! A bad line to a server: a proxy of bytes that loses them in one direction, or cuts all connections. Owns the faults; knows nothing
//! of what passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// See the module.
pub struct Wire {
    /// `nats://127.0.0.1:port`.
    pub url: String,
    /// What the server sends gets lost.
    pub loses_answers: Arc<AtomicBool>,
    /// What the client sends gets lost.
    pub loses_requests: Arc<AtomicBool>,
    cuts: watch::Sender<u64>,
}

impl Wire {
    /// In front of a server.
    pub async fn new(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let wire = Self {
            url,
            loses_answers: Arc::default(),
            loses_requests: Arc::default(),
            cuts: watch::Sender::new(0),
        };
        let (answers, requests) = (Arc::clone(&wire.loses_answers), Arc::clone(&wire.loses_requests));
        let cuts = wire.cuts.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(relay(from_client, to_server, Arc::clone(&requests), cuts.clone()));
                tokio::spawn(relay(from_server, to_client, Arc::clone(&answers), cuts.clone()));
            }
        });
        wire
    }

    /// Ends all connections; new ones pass whole.
    pub fn cut(&self) {
        self.loses_answers.store(false, Ordering::SeqCst);
        self.loses_requests.store(false, Ordering::SeqCst);
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn relay(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    loses: Arc<AtomicBool>,
    mut cuts: watch::Receiver<u64>,
) {
    cuts.mark_unchanged();
    let mut buffer = vec![0; 64 << 10];
    // Once something was lost, nothing that follows makes sense to the other side.
    let mut has_lost = false;
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = cuts.changed() => return,
        };
        let Ok(bytes @ 1..) = read else { return };
        has_lost |= loses.load(Ordering::SeqCst);
        if !has_lost && to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}
