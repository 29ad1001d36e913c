//! Taking connections. Owns what happens when the system gives none: the process or the host has no descriptor left.
//!
//! A descriptor is kept for this. Where no other is left it is given up for the next connection, and after that the stranger that
//! a newcomer would displace makes room: so health and metrics answer, and an owner can stop a capture, although captures have used
//! up every descriptor.
//!
//! Invariant: a failure of the system is waited out and never ends the listener.

use super::places::Places;
use crate::seldom::Seldom;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener with a descriptor to spare.
pub(super) struct Acceptor {
    listener: TcpListener,
    spare: Option<File>,
    said: Seldom,
}

impl Acceptor {
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, spare: None, said: Seldom::default() }
    }

    /// The next connection. Nothing is lost if this is dropped while it waits.
    pub async fn accept(&mut self, places: &Places) -> (TcpStream, SocketAddr) {
        if self.spare.is_none() {
            self.spare = File::open("/dev/null").ok();
        }
        loop {
            let error = match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => error,
            };
            if is_of_the_client(&error) {
                continue;
            }
            // The system says so before it looks whether anybody waits.
            if !is_waited_for(&self.listener) {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            if self.said.may(Instant::now()) {
                tracing::error!(
                    %error,
                    "connections cannot be taken; raise LimitNOFILE if files are missing. It is tried again, and this is said once a minute"
                );
            }
            if self.spare.take().is_none() {
                let _nobody_to_displace = places.shrink();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether a connection waits to be taken.
fn is_waited_for(listener: &TcpListener) -> bool {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    // If it cannot be told, somebody may.
    poll(&mut fds, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
}

/// Its client has gone already.
fn is_of_the_client(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}
