//! The one way in to the engine. Owns the action enum and its typed front; not what the actions do.
//!
//! Invariant: API, CLI and fleet only parse into [`Action`]; no one else touches a capture.

use super::adopt::{Adoption, PartState, Reclaimed, Steer};
use super::{Listed, Overview, Settings, Standing, Wanted};
use crate::history::Estimate;
use crate::job::{AccountId, CaptureId, Job, KeptSeries, ObjectRange, Progress, Request};
use crate::matcher::FilterV1;
use crate::worker::Share;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Why an action was not done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// This account has no such capture.
    #[error("no capture {0} in this account")]
    NotFound(CaptureId),
    /// This account's full capture is still at work.
    #[error("full capture {0} is still pending or running; stop it or wait for its end")]
    FullCaptureActive(CaptureId),
    /// This account started a simple capture a short time ago.
    #[error(
        "this account may start one simple capture in {interval_seconds} s; try again in {seconds_left} s"
    )]
    SimpleTooSoon {
        /// As configured.
        interval_seconds: u64,
        /// Until the next may start; at least one.
        seconds_left: u64,
    },
    /// This account's look backs are not ended, and are as many as it may have.
    #[error(
        "{max} look backs of this account are under way, which is all that it may have; try again in {seconds_left} s"
    )]
    TooManyLookBacks {
        /// [`crate::limits::LOOK_BACKS_PER_ACCOUNT_MAX`].
        max: usize,
        /// Until another one may be asked for.
        seconds_left: u64,
    },
    /// This account has asked for many look backs a short time ago.
    #[error(
        "this account may ask for one look back in {interval_seconds} s in the long run; try again in {seconds_left} s"
    )]
    LookBackTooSoon {
        /// As follows from `capture.simple_interval_seconds`.
        interval_seconds: f64,
        /// Until the next may be asked for; at least one.
        seconds_left: u64,
    },
    /// As many captures of this account wait for their upload as may.
    #[error(
        "{max} captures of this account have ended and wait for their upload, which is all that it may have; mend the \
         destination of {oldest}, or drop it (DELETE …/pcaps/{oldest})"
    )]
    TooManyWaiting {
        /// `capture.waiting_per_account`.
        max: usize,
        /// The one that waits longest.
        oldest: CaptureId,
    },
    /// This account has as much on the host's spool as it may.
    #[error(
        "this account has {held} bytes on this host's spool, and may begin a capture below {max} only{}; let its uploads \
         finish, or drop a capture that waits or failed (DELETE …/pcaps/ID; its progress says what it holds)",
        if *.is_short { " while the spool is full" } else { "" }
    )]
    ShareFull {
        /// Bytes that it has.
        held: u64,
        /// Below which one may begin.
        max: u64,
        /// Whether the host's spool is full.
        is_short: bool,
    },
    /// A host captures its part of a capture once.
    #[error("this host has had its part of capture {0} before, and captures it once")]
    Adopted(CaptureId),
    /// A part for an account that this host does not have.
    #[error("account {0} is not in this host's config")]
    UnknownAccount(AccountId),
    /// What is on the host of a capture that takes packets cannot be dropped.
    #[error("capture {0} still takes packets; stop it first")]
    StillCapturing(CaptureId),
    /// Every capture slot of the host is taken.
    #[error("all {0} capture slots of this host are in use; try again when one has ended")]
    NoSlot(usize),
    /// The slots that are free are for accounts that have none. The text does not say that there are others.
    #[error(
        "this host's capture slots are nearly all in use, and this account has some of them; try again when one of its captures \
         has ended"
    )]
    SlotsKept {
        /// Captures that can run at once.
        slots: usize,
        /// Of those, kept.
        kept: usize,
    },
    /// The workers have no block for one more stream.
    #[error(
        "this host's packet buffers suffice for {0} captures at once, and so many are running; try again when one has ended, or \
         have its operator raise blocks.bytes_max"
    )]
    NoBlocks(usize),
    /// This host keeps no history.
    #[error(
        "offset_time cannot be served: this host keeps no past packets; leave it out to capture from now on"
    )]
    NoHistory,
    /// There is nothing to make an estimate of.
    #[error("there is no estimate: {0}")]
    NoEstimate(&'static str),
    /// Nobody kept the capture's counts second by second.
    #[error(
        "no counts over time are kept of this capture: the process that counted them died before it could record them, or it is a \
         look back; its progress has its sums"
    )]
    NoSeries,
    /// This account asked for estimates a short time ago, or waits for one.
    #[error(
        "this account asked for many estimates a short time ago, or waits for one; try again in {seconds_left} s"
    )]
    EstimateTooSoon {
        /// Until the next may be asked for; at least one.
        seconds_left: u64,
    },
    /// The filter cannot be compiled.
    #[error("{0}")]
    Filter(String),
    /// The destination cannot be used.
    #[error("{0}")]
    Destination(String),
    /// The destination is not proven to be the account's any more.
    #[error("{0}")]
    Unproven(String),
    /// The destination's store gave no answer in time.
    #[error("{0}")]
    DestinationSilent(String),
    /// The host is shutting down or its engine has died.
    #[error("this host is shutting down")]
    ShuttingDown,
    /// The account was taken out of the config a moment ago.
    #[error("this account is closed; ask the operator of this host")]
    AccountGone,
    /// What many hosts share cannot be reached: nothing is known, and nothing was done that an answer would promise.
    #[error("the hosts' common records cannot be used now ({0}); try again")]
    FleetAway(String),
    /// No host is in the data center that was asked for.
    #[error("no host is in data center {sent:?}; there is {}", if .there.is_empty() { "none yet" } else { .there.as_str() })]
    NoColo {
        /// As asked for.
        sent: String,
        /// Where hosts are.
        there: String,
    },
    /// Something that many hosts together do not offer.
    #[error("this is not offered here: {0}")]
    NotOffered(&'static str),
    /// What was decided is carried out, and is not durable.
    #[error(
        "this is being done, but this host could not record it yet: should it fail now, it may not know of it; ask again, or ask its \
         operator"
    )]
    Undurable,
    /// The job could not be recorded.
    #[error("the capture could not be recorded: {0}")]
    Store(String),
}

/// What an estimate is asked of.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// As sent; `{}` takes every packet.
    pub filter: FilterV1,
    /// The last so many seconds; at most [`crate::limits::ESTIMATE_SECONDS_MAX`].
    pub window: Duration,
}

/// Everything that can be asked of the engine.
#[derive(Debug)]
pub enum Action {
    /// Start a capture.
    Create(Box<Request>, oneshot::Sender<Result<Job, Refusal>>),
    /// Start this host's part of a capture that another node accepted.
    Adopt(Box<Adoption>, oneshot::Sender<Result<Job, Refusal>>),
    /// Say something to a part.
    Steer(AccountId, CaptureId, Steer, oneshot::Sender<Result<(), Refusal>>),
    /// Lower a part's share to at most this; answered by how much.
    Reclaim(AccountId, CaptureId, Share, oneshot::Sender<Result<Reclaimed, Refusal>>),
    /// What is with a part, from now on.
    Part(AccountId, CaptureId, oneshot::Sender<Result<watch::Receiver<PartState>, Refusal>>),
    /// The account's captures, newest first, at most [`crate::limits::LIST_CAPTURES_MAX`].
    List(AccountId, oneshot::Sender<Vec<Job>>),
    /// A page of the account's captures.
    Page(AccountId, Wanted, oneshot::Sender<Result<Listed, Refusal>>),
    /// One capture with its counts up to now.
    Get(AccountId, CaptureId, oneshot::Sender<Result<Job, Refusal>>),
    /// End a capture and keep what it has. Stopping an ended one does nothing.
    Stop(AccountId, CaptureId, oneshot::Sender<Result<(), Refusal>>),
    /// What captures of the account that take no more packets have on the host, in bytes, oldest first.
    Held(AccountId, oneshot::Sender<Vec<(CaptureId, u64)>>),
    /// Drop what of a capture is on the host and not delivered. One of which nothing is there stays as it is.
    Drop(AccountId, CaptureId, oneshot::Sender<Result<(), Refusal>>),
    /// One capture's progress, with some of its objects.
    Progress(AccountId, CaptureId, ObjectRange, oneshot::Sender<Result<Progress, Refusal>>),
    /// One capture's counts over time.
    Series(AccountId, CaptureId, oneshot::Sender<Result<KeptSeries, Refusal>>),
    /// How many packets of the last seconds a filter takes, of those that the account may see.
    Estimate(AccountId, Asked, oneshot::Sender<Result<Estimate, Refusal>>),
    /// What the account may start now.
    Standing(AccountId, oneshot::Sender<Standing>),
    /// The state of the engine, over all accounts.
    Overview(oneshot::Sender<Overview>),
    /// Go on with other settings. Captures of accounts that are gone end as if they were stopped.
    TakeUp(Box<Settings>, oneshot::Sender<()>),
    /// End every capture, upload, then end the engine. Answered when all is done.
    Shutdown(oneshot::Sender<()>),
}

/// A cheap, cloneable front of the engine.
#[derive(Clone, Debug)]
pub struct Handle {
    actions: mpsc::Sender<Action>,
}

impl Handle {
    /// A handle and the queue that the engine reads; at most `depth` actions wait.
    #[must_use]
    pub fn channel(depth: usize) -> (Self, mpsc::Receiver<Action>) {
        let (actions, queue) = mpsc::channel(depth);
        (Self { actions }, queue)
    }

    async fn ask<T>(&self, action: impl FnOnce(oneshot::Sender<T>) -> Action) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.actions.send(action(reply)).await.map_err(|_| Refusal::ShuttingDown)?;
        answer.await.map_err(|_| Refusal::ShuttingDown)
    }

    /// Starts a capture.
    ///
    /// # Errors
    /// [`Refusal`] when it was not started.
    pub async fn create(&self, request: Request) -> Result<Job, Refusal> {
        self.ask(|reply| Action::Create(Box::new(request), reply)).await?
    }

    /// Starts this host's part of a capture that another node accepted. Only what this host lacks refuses it: an account, a slot, room
    /// on its spool, a destination that takes objects.
    ///
    /// # Errors
    /// [`Refusal::Adopted`] if it had the part before, and whatever else keeps it from being started.
    pub async fn adopt(&self, adoption: Adoption) -> Result<Job, Refusal> {
        self.ask(|reply| Action::Adopt(Box::new(adoption), reply)).await?
    }

    /// Says something to a part that has not ended.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub async fn steer(&self, account: AccountId, id: CaptureId, steer: Steer) -> Result<(), Refusal> {
        self.ask(|reply| Action::Steer(account, id, steer, reply)).await?
    }

    /// Lowers the share of a part that has not ended to at most `keep`.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], also of a part that has no share.
    pub async fn reclaim(
        &self,
        account: AccountId,
        id: CaptureId,
        keep: Share,
    ) -> Result<Reclaimed, Refusal> {
        self.ask(|reply| Action::Reclaim(account, id, keep, reply)).await?
    }

    /// What is with a part: the newest state, whenever it is looked at. Its last is that of the part's end.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub async fn part(
        &self,
        account: AccountId,
        id: CaptureId,
    ) -> Result<watch::Receiver<PartState>, Refusal> {
        self.ask(|reply| Action::Part(account, id, reply)).await?
    }

    /// The account's captures, newest first.
    ///
    /// # Errors
    /// Only [`Refusal::ShuttingDown`].
    pub async fn list(&self, account: AccountId) -> Result<Vec<Job>, Refusal> {
        self.ask(|reply| Action::List(account, reply)).await
    }

    /// A page of the account's captures, newest first.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if it is to begin behind a capture that the account does not have.
    pub async fn page(&self, account: AccountId, wanted: Wanted) -> Result<Listed, Refusal> {
        self.ask(|reply| Action::Page(account, wanted, reply)).await?
    }

    /// One capture.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] also when it is another account's.
    pub async fn get(&self, account: AccountId, id: CaptureId) -> Result<Job, Refusal> {
        self.ask(|reply| Action::Get(account, id, reply)).await?
    }

    /// Ends a capture and keeps what it has.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] also when it is another account's.
    pub async fn stop(&self, account: AccountId, id: CaptureId) -> Result<(), Refusal> {
        self.ask(|reply| Action::Stop(account, id, reply)).await?
    }

    /// What captures of the account that take no more packets have on the host, in bytes, oldest first.
    ///
    /// # Errors
    /// Only [`Refusal::ShuttingDown`].
    pub async fn held(&self, account: AccountId) -> Result<Vec<(CaptureId, u64)>, Refusal> {
        self.ask(|reply| Action::Held(account, reply)).await
    }

    /// Drops what of a capture is on the host and not delivered; it then fails, if it has not ended.
    ///
    /// # Errors
    /// [`Refusal::StillCapturing`], and [`Refusal::NotFound`] also when it is another account's.
    pub async fn discard(&self, account: AccountId, id: CaptureId) -> Result<(), Refusal> {
        self.ask(|reply| Action::Drop(account, id, reply)).await?
    }

    /// One capture's progress.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] also when it is another account's.
    pub async fn progress(&self, account: AccountId, id: CaptureId) -> Result<Progress, Refusal> {
        self.progress_with(account, id, ObjectRange::ALL).await
    }

    /// One capture's progress, with these of its objects.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] also when it is another account's.
    pub async fn progress_with(
        &self,
        account: AccountId,
        id: CaptureId,
        range: ObjectRange,
    ) -> Result<Progress, Refusal> {
        self.ask(|reply| Action::Progress(account, id, range, reply)).await?
    }

    /// One capture's counts over time.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] also when it is another account's.
    pub async fn series(&self, account: AccountId, id: CaptureId) -> Result<KeptSeries, Refusal> {
        self.ask(|reply| Action::Series(account, id, reply)).await?
    }

    /// How many packets of the last seconds a filter takes. Ends when the caller does.
    ///
    /// # Errors
    /// [`Refusal::NoEstimate`] without a history, [`Refusal::EstimateTooSoon`], and when the history cannot be read.
    pub async fn estimate(&self, account: AccountId, asked: Asked) -> Result<Estimate, Refusal> {
        self.ask(|reply| Action::Estimate(account, asked, reply)).await?
    }

    /// What the account may start now.
    ///
    /// # Errors
    /// Only [`Refusal::ShuttingDown`].
    pub async fn standing(&self, account: AccountId) -> Result<Standing, Refusal> {
        self.ask(|reply| Action::Standing(account, reply)).await
    }

    /// The state of the engine, over all accounts: for operators, never for customers.
    ///
    /// # Errors
    /// Only [`Refusal::ShuttingDown`].
    pub async fn overview(&self) -> Result<Overview, Refusal> {
        self.ask(Action::Overview).await
    }

    /// Goes on with other settings; returns when they hold for all that is asked for later.
    ///
    /// # Errors
    /// Only [`Refusal::ShuttingDown`].
    pub async fn take_up(&self, settings: Settings) -> Result<(), Refusal> {
        self.ask(|reply| Action::TakeUp(Box::new(settings), reply)).await
    }

    /// Ends every capture, uploads, and ends the engine; returns when all is done.
    pub async fn shutdown(&self) {
        let _ended_already = self.ask(Action::Shutdown).await;
    }
}
