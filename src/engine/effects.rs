//! What the machine asks for, begun. Owns the translation of effects into workers' assignments, tasks and writes; decides
//! nothing.
//!
//! Invariant: beginning an effect never waits.

use super::machine::{Capture, Effect, Input, RECORD_TIME_MAX, Serial, Sought};
use super::roster::Desired;
use super::tasks::removal_died;
use super::{Change, Engine, Refusal, Reply, Resources};
use crate::deliver::journal::{self, CaptureRecord, settle_counts};
use crate::deliver::{
    Delivery, Manifest, Outcome, Report, Reporter, RetryPolicy, Route, Vouchers, Words, find_manifest,
    put_manifest,
};
use crate::job::{BucketTerms, Job, Ledger};
use crate::merge::Shape;
use crate::pcap::{Counts, Origin};
use crate::seldom::SeldomOfEach;
use crate::spool::{Failure, Feed, Input as Told, SpoolCapture};
use crate::upload::UploadError;
use crate::worker::{Attachment, Budget, Ended, Sample, Window};
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::watch;

/// What destinations that cannot be used cause in the log.
static UNUSABLE: SeldomOfEach = SeldomOfEach::new();

impl Engine {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Created { reply, answer } => self.answer_create(reply, answer),
            Effect::Promised { reply, answer } => self.answer_promise(reply, answer),
            Effect::TryDestination { serial } => self.try_destination(serial),
            Effect::RecordNew { serial, version, job } => {
                if let Some(writer) = &self.writer {
                    writer.create(serial, version, *job, RECORD_TIME_MAX);
                }
            }
            Effect::Record { serial, version, job } => {
                if let Some(writer) = &self.writer {
                    writer.set(serial, version, self.with_series(serial, job));
                }
            }
            Effect::RecordObjects { id, first, objects } => {
                if let Some(writer) = &self.writer {
                    writer.append(id, first, objects);
                }
            }
            Effect::Place { serial } => self.place(serial),
            Effect::Deliver { serial } => self.deliver(serial, false),
            Effect::DeliverLeft { serial } => self.deliver(serial, true),
            Effect::Attach { serial, slot } => self.attach(serial, slot),
            Effect::EndBudget { serial, ended } => self.end_budget(serial, ended),
            Effect::Detach { serial, slot } => {
                self.stop_series(serial);
                let generation = self.assignments.set(slot, None);
                self.changes.push_back((generation, Change::Detach { serial, slot }));
            }
            Effect::Raise { serial, more } => self.raise(serial, more),
            Effect::Lower { serial, reply, keep } => self.lower(serial, reply, keep),
            Effect::Resample { serial, slot } => {
                let sample = self.machine.capture(serial).and_then(|capture| capture.job.sample_one_in);
                self.assignments.resample(slot, sample.and_then(Sample::new));
            }
            Effect::RefuseWrites { serial, failure } => self.planes.spool.refuse(serial, failure),
            Effect::Note { serial } => self.note(serial),
            Effect::SettleCounts { serial, counts } => self.settle_counts(serial, counts),
            Effect::Publish { serial, manifest } => self.publish(serial, *manifest),
            Effect::Seek { serial } => self.seek(serial),
            Effect::Remove { serial } => self.release(serial, true),
            Effect::Forget { serial } => self.release(serial, false),
            Effect::Discard { serial } => self.discard_dir(serial),
            Effect::GiveUp { serial, why } => {
                if let Some(resources) = self.resources.get(&serial) {
                    resources.given_up.send_replace(Some(why));
                }
            }
            Effect::DropKept { account, id, why } => self.drop_kept(account, id, why),
            Effect::Drop { serial } => drop(self.resources.remove(&serial)),
            Effect::Weigh => self.weigh(),
            Effect::StopRetrying => drop(self.leaving.send_replace(true)),
            Effect::PlaceRecording { serial } => self.place_recording(serial),
            Effect::AttachRecording { serial } => self.attach_recording(serial),
            Effect::DetachRecording => self.detach_recording(),
            Effect::ForgetRecording { serial } => self.forget_recording(serial),
            Effect::LookBack { serial, complete_below } => self.look_back(serial, complete_below),
            Effect::Finish { replies } => {
                self.finished = true;
                for reply in replies {
                    if let Some(Reply::Shutdown(reply)) = self.replies.remove(&reply) {
                        let _nobody_waits = reply.send(());
                    }
                }
            }
        }
    }

    fn answer_create(&mut self, reply: u64, answer: Result<Box<Job>, Refusal>) {
        if let Some(Reply::Create(reply)) = self.replies.remove(&reply) {
            let _caller_gone = reply.send(answer.map(|job| *job));
        }
    }

    fn answer_promise(&mut self, reply: u64, answer: Result<(), Refusal>) {
        if let Some(Reply::Promise(reply)) = self.replies.remove(&reply) {
            let _caller_gone = reply.send(answer);
        }
    }

    fn try_destination(&mut self, serial: Serial) {
        let Some(capture) = self.machine.capture(serial) else { return };
        let request = &capture.job.request;
        let budget = match capture.adopted.map(|adopted| adopted.share) {
            None => Budget::new(request.packet_limit, request.byte_limit),
            Some(None) => Budget::new(None, None),
            Some(Some(first)) => Budget::share(first),
        };
        let resources = Resources {
            budget: Arc::new(budget),
            feed: Arc::new(Feed::new(capture.queues)),
            dirs: None,
            origin: Arc::new(self.origin(&capture.job)),
            capturing: watch::Sender::new(true),
            given_up: watch::Sender::new(None),
            series: None,
            part: None,
            dry: None,
        };
        let (mut route, time_max) = (self.route(&capture.job), self.planes.contact_time_max);
        let (id, account) = (capture.job.id.clone(), capture.job.request.account.clone());
        self.resources.insert(serial, resources);
        let task = async move {
            let tried = route.try_out(time_max).await.map_err(|error| match error {
                UploadError::Unreachable { .. } => Refusal::DestinationSilent(error.to_string()),
                UploadError::Unproven { .. } => Refusal::Unproven(error.to_string()),
                _ => {
                    let words = route.words(&error);
                    if UNUSABLE.may(&account.0, Instant::now()) {
                        tracing::info!(
                            capture = %id, %account, error = %words,
                            "a destination cannot be used; more of this account within a minute are not told"
                        );
                    }
                    Refusal::Destination(words.into_customer())
                }
            });
            Input::Opened { serial, tried }
        };
        let died = || {
            Refusal::Destination("the destination could not be tried; ask this host's operator".to_owned())
        };
        self.spawn(task, move |_said_in_the_log| Input::Opened { serial, tried: Err(died()) });
    }

    /// What pcapng objects say of a capture.
    fn origin(&self, job: &Job) -> Origin {
        let filter = serde_json::to_string(&job.request.filter).unwrap_or_default();
        let comments = vec![
            format!("capture {}", job.id),
            format!("host {}, colo {}", self.planes.host, self.planes.colo),
            format!("filter_v1 {filter}"),
        ];
        Origin { comments, ..self.planes.origin.clone() }
    }

    fn dir(&self, capture: &Capture) -> PathBuf {
        self.planes.spool.config().dir.join(capture.job.id.as_str())
    }

    pub(super) fn route(&self, job: &Job) -> Route {
        Route {
            stores: Arc::clone(&self.planes.stores),
            account: job.request.account.clone(),
            keys: self.planes.keys.clone(),
            kept: BucketTerms { keys: job.keys.clone(), proof: job.proof.clone() },
            destination: job.request.destination.clone(),
            simple_dir: self.planes.simple_dir.clone(),
        }
    }

    /// Makes the directory, and writes down what the capture is before its first packet can be in it.
    fn place(&mut self, serial: Serial) {
        let (Some(capture), Some(resources)) = (self.machine.capture(serial), self.resources.get(&serial))
        else {
            return;
        };
        let (dir, record) = (self.dir(capture), self.record(capture, resources, Ledger::default()));
        let budget = Arc::clone(&resources.budget);
        let account = capture.job.request.account.clone();
        let (feed, events) = (Arc::clone(&resources.feed), self.events.0.clone());
        let stop = Box::new(move |_: &Failure| budget.end(Ended::Revoked));
        let place = SpoolCapture::new(serial, dir.clone(), capture.queues, feed, events, stop);
        let spool = Arc::clone(&self.planes.spool);
        let task = move || {
            spool.assign(&dir, &account.0);
            let made = spool.register(place).and_then(|()| record.write(&dir));
            if made.is_err() {
                spool.forget(serial);
            }
            let made = made.map_err(|error| format!("cannot make a directory in the spool: {error}"));
            Input::Placed { serial, made }
        };
        self.spawn_blocking(task, move |error| Input::Placed { serial, made: Err(error) });
    }

    fn deliver(&mut self, serial: Serial, is_left: bool) {
        let (Some(capture), Some(resources)) = (self.machine.capture(serial), self.resources.get(&serial))
        else {
            return;
        };
        let end = Arc::new(Mutex::new(None));
        let delivery = Delivery {
            part: capture.job.part(),
            dir: self.dir(capture),
            queues: capture.queues,
            shape: Shape {
                snaplen: capture.snaplen(),
                object_bytes_max: capture.object_bytes_max,
                format: capture.format,
                origin: Arc::clone(&resources.origin),
            },
            route: self.route(&capture.job),
            feed: Arc::clone(&resources.feed),
            spool: Arc::clone(&self.planes.spool),
            retry: self.retry_policy(resources, serial),
            reporter: self.delivery_reporter(serial, Arc::clone(&end)),
            places: Arc::clone(&self.planes.places),
            pace: Arc::clone(&self.planes.pace),
            objects_max: self.planes.objects_in_flight,
            cores: Arc::clone(&self.planes.delivery_cores),
            capturing: resources.capturing.subscribe(),
            frees: Mutex::default(),
        };
        let task = async move {
            if is_left {
                delivery.run_recovered().await
            } else {
                delivery.run().await
            }
            // Now nothing of the delivery is left, not even what it holds of store and spool.
            let told = end.lock().unwrap_or_else(PoisonError::into_inner).take();
            let outcome =
                told.unwrap_or_else(|| Outcome::Failed(Words::alike("the delivery ended without a result")));
            Input::Delivery { serial, report: Report::Delivered(outcome) }
        };
        self.spawn(task, move |error| {
            let outcome = Outcome::Failed(Words::of_host(format!("the delivery died: {error}")));
            Input::Delivery { serial, report: Report::Delivered(outcome) }
        });
    }

    /// Passes on the news of a delivery, and keeps back its end until its task has ended.
    fn delivery_reporter(&self, serial: Serial, end: Arc<Mutex<Option<Outcome>>>) -> Reporter {
        let tasks = self.tasks.0.clone();
        Reporter::new(move |report| match report {
            Report::Delivered(outcome) => {
                end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(outcome);
            }
            report => {
                let _engine_gone = tasks.send(Input::Delivery { serial, report });
            }
        })
    }

    fn reporter(&self, serial: Serial) -> Reporter {
        let tasks = self.tasks.0.clone();
        Reporter::new(move |report| {
            let _engine_gone = tasks.send(Input::Delivery { serial, report });
        })
    }

    fn retry_policy(&self, resources: &Resources, serial: Serial) -> RetryPolicy {
        RetryPolicy {
            bounds: self.retries.subscribe(),
            leaving: self.leaving.subscribe(),
            time_is_up: self.time_is_up.subscribe(),
            given_up: resources.given_up.subscribe(),
            reporter: self.reporter(serial),
        }
    }

    fn attach(&mut self, serial: Serial, slot: usize) {
        let ports = self.planes.ports.latest().drops;
        let Some(budget) = self.resources.get(&serial).map(|resources| Arc::clone(&resources.budget)) else {
            return;
        };
        self.machine.begin_counting(serial, ports);
        self.begin_series(serial);
        let Some(capture) = self.machine.capture(serial) else { return };
        let request = &capture.job.request;
        let limit = capture.window_left(self.now().mono);
        let payer = self.tenants.payer(&request.account);
        let attachment = Attachment {
            serial,
            payer,
            snaplen: capture.snaplen(),
            window: Window::open(Some(limit)),
            budget,
            sample: capture.job.sample_one_in.and_then(Sample::new),
            rotate: None,
        };
        let scope = self.scope(&request.account);
        let desired = capture.filter.map(|filter| Desired { filter, scope, attachment });
        let generation = self.assignments.set(slot, desired);
        self.changes.push_back((generation, Change::Attach(serial)));
    }

    fn end_budget(&mut self, serial: Serial, ended: Ended) {
        let Some(resources) = self.resources.get(&serial) else { return };
        resources.budget.end(ended);
        if let Some(ended) = resources.budget.ended() {
            self.inputs.push_back(Input::BudgetEnded { serial, ended });
        }
    }

    fn record(&self, capture: &Capture, resources: &Resources, ledger: Ledger) -> CaptureRecord {
        CaptureRecord {
            job: capture.flat_job(ledger),
            queues: capture.queues,
            snaplen: capture.snaplen(),
            object_bytes_max: capture.object_bytes_max,
            format: capture.format,
            origin: Origin::clone(&resources.origin),
            dirs: match &resources.dirs {
                Some(dirs) => dirs.clone(),
                None => self.planes.spool.dirs_of_queues(capture.serial),
            },
            started: capture.started,
            ended: capture.ended,
            known_until: Timestamp::now(),
            is_final: capture.is_final(),
        }
    }

    fn note(&self, serial: Serial) {
        let (Some(capture), Some(resources)) = (self.machine.capture(serial), self.resources.get(&serial))
        else {
            return;
        };
        let dir = self.dir(capture);
        let record = self.record(capture, resources, self.ledger(capture));
        let task = move || {
            if let Err(error) = record.write(&dir) {
                tracing::warn!(dir = %dir.display(), %error, "a capture's counts could not be written down");
            }
            Input::Noted { serial }
        };
        self.spawn_blocking(task, move |error| {
            tracing::error!(error, "a capture's counts could not be written down");
            Input::Noted { serial }
        });
    }

    /// Counts are on the disk before the merge hears of them.
    fn settle_counts(&self, serial: Serial, counts: Counts) {
        let (Some(capture), Some(resources)) = (self.machine.capture(serial), self.resources.get(&serial))
        else {
            return;
        };
        let (dir, feed) = (self.dir(capture), Arc::clone(&resources.feed));
        let settled = tokio::task::spawn_blocking(move || {
            if let Err(error) = settle_counts(&dir, &counts) {
                tracing::error!(dir = %dir.display(), %error, "a capture's counts could not be kept; its file will not say them");
            }
            // As the next process would find them.
            journal::counts(&dir).unwrap_or_default()
        });
        tokio::spawn(async move { feed.tell(Told::Counts(settled.await.unwrap_or_default())) });
    }

    /// Who vouches for manifests, by the config as it is now.
    pub(super) fn vouchers(&self) -> Vouchers {
        let settings = &self.planes.settings;
        Vouchers { key: settings.signing_key.clone(), authority: settings.authority.clone() }
    }

    fn publish(&self, serial: Serial, manifest: Manifest) {
        let (Some(capture), Some(resources)) = (self.machine.capture(serial), self.resources.get(&serial))
        else {
            return;
        };
        let (route, dir) = (self.route(&capture.job), self.dir(capture));
        let retry = self.retry_policy(resources, serial);
        let vouchers = self.vouchers();
        let task = async move {
            Input::Closed { serial, outcome: put_manifest(route, dir, manifest, vouchers, retry).await }
        };
        self.spawn(task, move |error| {
            let outcome = Outcome::Failed(Words::of_host(format!("the manifest's writing died: {error}")));
            Input::Closed { serial, outcome }
        });
    }

    fn seek(&self, serial: Serial) {
        let (Some(capture), Some(resources)) = (self.machine.capture(serial), self.resources.get(&serial))
        else {
            return;
        };
        let (route, part) = (self.route(&capture.job), capture.job.part());
        let retry = self.retry_policy(resources, serial);
        let task = async move {
            let found = match find_manifest(&route, &part, retry).await {
                Ok(Some(manifest)) => Sought::Manifest(Box::new(manifest)),
                Ok(None) => Sought::Nothing(None),
                Err(Outcome::Left) => Sought::Left,
                Err(Outcome::Failed(error) | Outcome::Gone(error)) => {
                    tracing::error!(capture = %part.capture, %error, "what became of a capture could not be found out");
                    Sought::Nothing(Some(error.into_customer()))
                }
                Err(Outcome::Done) => Sought::Nothing(None),
            };
            Input::Sought { serial, found }
        };
        self.spawn(task, move |error| Input::Sought { serial, found: Sought::Nothing(Some(error)) });
    }

    fn release(&self, serial: Serial, remove: bool) {
        self.tell_part(serial);
        let Some(capture) = self.machine.capture(serial) else { return };
        let (dir, spool) = (self.dir(capture), Arc::clone(&self.planes.spool));
        let task = move || {
            let result =
                if remove { journal::remove(&spool, &dir).map(|_kept_and_said_so| ()) } else { Ok(()) };
            spool.forget(serial);
            let kept = spool.bytes_left(&dir);
            let result = result.map_err(|error| format!("{}: {error}", dir.display()));
            Input::Removed { serial, result, kept }
        };
        self.spawn_blocking(task, removal_died(serial));
        if capture.job.request.destination.is_none() {
            self.planes.simple_written.notify_one();
        }
    }

    fn weigh(&mut self) {
        let captured = self
            .machine
            .captures()
            .filter(|capture| capture.takes_packets())
            .map(|capture| (capture.serial, self.ledger(capture).captured_bytes))
            .collect();
        self.inputs.push_back(Input::Weighed { captured });
    }
}
