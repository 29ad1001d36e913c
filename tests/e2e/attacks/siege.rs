//! A siege: attacks at work at once, a restart in their middle, and a victim beside them. Owns its course and what is held of it.

use super::host::Host;
use super::latency::Latencies;
use super::victim::Victim;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long quiet is measured, and each half of a siege.
const PART: Duration = Duration::from_secs(4);
/// What an attack may add to the median.
const MEDIAN_MORE_MAX: Duration = Duration::from_millis(50);
/// What 99 of 100 answers may take.
const MOST: Duration = Duration::from_secs(1);

/// What the host's end may take: clients that do not end a request must not hold it up.
const END_TIME_MAX: Duration = Duration::from_secs(20);

/// How the host ends in the middle.
#[derive(Clone, Copy, PartialEq)]
pub enum Restart {
    /// SIGTERM.
    Ordered,
    /// `kill -9`.
    Killed,
}

/// How an attacker's requests were answered: by error code, or by status where there was none.
#[derive(Default)]
pub struct Tally(pub BTreeMap<u64, u64>);

impl Tally {
    pub fn count(&mut self, answer: u64) {
        *self.0.entry(answer).or_default() += 1;
    }

    /// Counts an answer, if there was one.
    pub fn answer(&mut self, answer: Option<&crate::http::Answer>) {
        if let Some(answer) = answer {
            let code = answer.body["errors"][0]["code"].as_u64();
            self.count(code.unwrap_or(answer.status.into()));
        }
    }
}

/// Whether the attack goes on.
pub struct GoesOn(AtomicBool);

impl GoesOn {
    pub fn is_true(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits between two requests of an attack; whether it goes on.
    pub fn pause(&self, time: Duration) -> bool {
        std::thread::sleep(time);
        self.is_true()
    }
}

/// Ends a siege, also when something in it panics.
struct Ends<'a>(&'a GoesOn);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

/// One attack, and the answer that it must meet: otherwise nothing was attacked. 0 where a metric says it.
pub struct Attack {
    name: &'static str,
    run: fn(&Host, &GoesOn) -> Tally,
    meets: Vec<u64>,
}

impl Attack {
    pub fn new(name: &'static str, run: fn(&Host, &GoesOn) -> Tally, meets: u64) -> Self {
        Self { name, run, meets: if meets == 0 { Vec::new() } else { vec![meets] } }
    }

    /// Or this one, which may come first.
    pub fn or(mut self, meets: u64) -> Self {
        self.meets.push(meets);
        self
    }
}

/// Measures quiet, then attacks, restarts the host in the middle, and holds what the victim was promised.
pub async fn besiege(host: &Host, attacks: &[Attack], restart: Restart) {
    let victim = Victim::new(host);
    let quiet = tokio::task::block_in_place(|| {
        let goes_on = GoesOn(AtomicBool::new(true));
        std::thread::scope(|scope| {
            let polled = scope.spawn(|| victim.poll(&goes_on));
            let captured = scope.spawn(|| victim.capture_in_a_row(&goes_on));
            let ends = Ends(&goes_on);
            std::thread::sleep(PART);
            drop(ends);
            captured.join().unwrap();
            Latencies::of(polled.join().unwrap())
        })
    });
    println!("quiet: {quiet}");
    let (attacked, tallies) = tokio::task::block_in_place(|| attack(host, &victim, attacks, restart));
    println!("attacked: {attacked}");
    for (attack, tally) in attacks.iter().zip(&tallies) {
        println!("{}: {:?}", attack.name, tally.0);
    }
    victim.assert_whole(restart).await;
    assert!(attacked.median() <= quiet.median() + MEDIAN_MORE_MAX, "quiet: {quiet}; attacked: {attacked}");
    assert!(attacked.most() <= MOST, "quiet: {quiet}; attacked: {attacked}");
    for (attack, tally) in attacks.iter().zip(&tallies) {
        let is_met = attack.meets.is_empty() || attack.meets.iter().any(|code| tally.0.contains_key(code));
        assert!(is_met, "{} met none of {:?}: {:?}", attack.name, attack.meets, tally.0);
    }
}

fn attack(host: &Host, victim: &Victim<'_>, attacks: &[Attack], restart: Restart) -> (Latencies, Vec<Tally>) {
    let goes_on = GoesOn(AtomicBool::new(true));
    std::thread::scope(|scope| {
        let running: Vec<_> =
            attacks.iter().map(|attack| scope.spawn(|| (attack.run)(host, &goes_on))).collect();
        let polled = scope.spawn(|| victim.poll(&goes_on));
        let captured = scope.spawn(|| victim.capture_in_a_row(&goes_on));
        let ends = Ends(&goes_on);
        std::thread::sleep(PART);
        host.ends();
        let began = Instant::now();
        let mut trawl = host.trawl_alone();
        match restart {
            Restart::Killed => trawl.kill(),
            Restart::Ordered => {
                trawl.signal(Signal::TERM);
                let status = trawl.wait(Duration::from_secs(60));
                assert!(status.success(), "{status}: {}", trawl.log());
            }
        }
        let ended = began.elapsed();
        assert!(ended < END_TIME_MAX, "it took {ended:?} to end: {}", trawl.log());
        trawl.restart();
        drop(trawl);
        println!("ended within {ended:.1?}, and answered again after {:.1?}", began.elapsed());
        std::thread::sleep(PART);
        drop(ends);
        captured.join().unwrap();
        let latencies = Latencies::of(polled.join().unwrap());
        (latencies, running.into_iter().map(|attack| attack.join().unwrap()).collect())
    })
}
