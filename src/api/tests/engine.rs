//! An engine for tests of the API: real jobs and real actions, no packets. Ids count up and time goes on by one second
//! with each job, so that answers can be compared to the byte.

use crate::engine::{Action, Asked, Estimate, Handle, Listed, Overview, Refusal, Standing, Wanted};
use crate::job::{
    AccountId, CaptureId, Job, Kind, Ledger, ObjectRange, ObjectSums, Progress, Request, Status, StopReason,
};
use jiff::Timestamp;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// Its front, and its jobs in the order of their creation.
pub struct Engine {
    pub handle: Handle,
    pub jobs: Arc<Mutex<Vec<Job>>>,
    /// Of every capture.
    pub warnings: Arc<Mutex<Vec<String>>>,
}

impl Engine {
    /// Starts it on the current runtime.
    pub fn start() -> Self {
        let (handle, queue) = Handle::channel(16);
        let jobs = Arc::new(Mutex::new(Vec::new()));
        let warnings = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(run(queue, Arc::clone(&jobs), Arc::clone(&warnings)));
        Self { handle, jobs, warnings }
    }
}

async fn run(
    mut queue: mpsc::Receiver<Action>,
    jobs: Arc<Mutex<Vec<Job>>>,
    warnings: Arc<Mutex<Vec<String>>>,
) {
    while let Some(action) = queue.recv().await {
        let mut jobs = jobs.lock().unwrap();
        // An asker that has gone away needs no answer.
        match action {
            Action::Create(request, reply) => drop(reply.send(create(*request, &mut jobs))),
            Action::List(account, reply) => {
                let mine = jobs.iter().rev().filter(|job| job.request.account == account);
                drop(reply.send(mine.take(50).cloned().collect()));
            }
            Action::Page(account, wanted, reply) => drop(reply.send(page(&jobs, &account, &wanted))),
            Action::Get(account, id, reply) => {
                let found = jobs.iter().find(|job| job.id == id && job.request.account == account);
                drop(reply.send(found.cloned().ok_or(Refusal::NotFound(id))));
            }
            Action::Stop(account, id, reply) => {
                let found = jobs.iter_mut().find(|job| job.id == id && job.request.account == account);
                drop(reply.send(found.map(stop).ok_or(Refusal::NotFound(id))));
            }
            // No route asks this.
            Action::Adopt(..) | Action::Steer(..) | Action::Reclaim(..) | Action::Part(..) => {}
            Action::Held(_, reply) => drop(reply.send(Vec::new())),
            Action::Drop(account, id, reply) => {
                let found = jobs.iter().find(|job| job.id == id && job.request.account == account);
                drop(reply.send(match found {
                    None => Err(Refusal::NotFound(id)),
                    Some(job) if job.stop_reason.is_none() => Err(Refusal::StillCapturing(id)),
                    Some(_) => Ok(()),
                }));
            }
            Action::Progress(account, id, range, reply) => {
                let found = jobs.iter().find(|job| job.id == id && job.request.account == account);
                drop(
                    reply.send(
                        found
                            .map(|job| progress(job, range, &warnings.lock().unwrap()))
                            .ok_or(Refusal::NotFound(id)),
                    ),
                );
            }
            Action::Series(account, id, reply) => {
                let found = jobs.iter().find(|job| job.id == id && job.request.account == account);
                let found = found.ok_or(Refusal::NotFound(id));
                let found = found.and_then(|job| job.counts_over_time().ok_or(Refusal::NoSeries));
                drop(reply.send(found));
            }
            Action::Estimate(_, asked, reply) => drop(reply.send(estimate(&asked))),
            Action::Standing(_, reply) => {
                let _gone = reply.send(Standing { is_accepting: true, ..Standing::default() });
            }
            Action::TakeUp(_, reply) => drop(reply.send(())),
            Action::Overview(reply) => drop(reply.send(Overview::default())),
            Action::Shutdown(reply) => {
                reply.send(()).unwrap();
                return;
            }
        }
    }
}

fn page(jobs: &[Job], account: &AccountId, wanted: &Wanted) -> Result<Listed, Refusal> {
    let is_wanted = |job: &&Job| job.request.account == *account && wanted.admits(job);
    let all: Vec<Job> = jobs.iter().rev().filter(is_wanted).cloned().collect();
    let from = match &wanted.before {
        None => 0,
        Some(id) => {
            let own = jobs.iter().find(|job| job.id == *id && job.request.account == *account);
            let own = own.ok_or_else(|| Refusal::NotFound(id.clone()))?;
            all.iter().take_while(|job| job.submitted >= own.submitted).count()
        }
    };
    let (total, left) = (all.len() as u64, all.len() - from);
    let jobs: Vec<Job> = all.into_iter().skip(from).take(wanted.count_max).collect();
    let next = jobs.last().filter(|_| left > wanted.count_max).map(|job| job.id.clone());
    Ok(Listed { jobs, next, total })
}

/// Too soon for port 1, none for port 2.
fn estimate(asked: &Asked) -> Result<Estimate, Refusal> {
    match asked.filter.destination_port.as_ref().and_then(serde_json::Number::as_u64) {
        Some(1) => Err(Refusal::EstimateTooSoon { seconds_left: 3 }),
        Some(2) => Err(Refusal::NoEstimate("this host keeps no past packets")),
        _ => Ok(Estimate {
            from_ns: 1_795_500_000_000_000_000,
            to_ns: 1_795_500_000_000_000_000 + asked.window.as_nanos() as u64,
            packets: 1000,
            packets_low: 900,
            packets_high: 1100,
            bytes: 60_000,
            sample_one_in: 100,
        }),
    }
}

fn create(request: Request, jobs: &mut Vec<Job>) -> Result<Job, Refusal> {
    let active = |job: &&Job| {
        job.request.kind == Kind::Full && job.request.account == request.account && !job.status.ended()
    };
    if request.kind == Kind::Full
        && let Some(job) = jobs.iter().find(active)
    {
        return Err(Refusal::FullCaptureActive(job.id.clone()));
    }
    let number = jobs.len() as i64;
    let job = Job {
        id: CaptureId::parse(&format!("{:032x}", 0xcafe_0000 + number)).unwrap(),
        submitted: Timestamp::from_microsecond(1_795_500_000_000_123 + number * 1_000_000).unwrap(),
        ..Job::accepted(request, None)
    };
    jobs.push(job.clone());
    Ok(job)
}

/// Ends a job with 4821 packets, as if the conversion took no time.
fn stop(job: &mut Job) {
    if job.status.ended() {
        return;
    }
    job.stop_requested = Some(Timestamp::from_microsecond(1_795_500_060_500_000).unwrap());
    job.stop_reason = Some(StopReason::StopRequested);
    job.status = Status::Success;
    job.ledger = Ledger {
        offered: 5000,
        rx: 5000,
        unmatched: 179,
        matched: 4821,
        captured: 4821,
        captured_bytes: 4821 * 64,
        ..Ledger::default()
    };
}

fn progress(job: &Job, range: ObjectRange, warnings: &[String]) -> Progress {
    Progress {
        id: job.id.clone(),
        status: job.status,
        stop_reason: job.stop_reason,
        ledger: job.ledger,
        seconds_left: if job.stop_reason.is_some() { 0.0 } else { job.request.time_limit },
        packet_limit: job.request.packet_limit,
        byte_limit: job.request.byte_limit,
        started: job.started,
        ended: job.ended,
        objects: range.of(&job.objects).to_vec(),
        delivered: ObjectSums::of(&job.objects),
        // As of a spool that fills up.
        warnings: warnings.to_vec(),
        sample_one_in: job.sample_one_in,
        clock_steps: job.clock_steps,
        spool: None,
    }
}
