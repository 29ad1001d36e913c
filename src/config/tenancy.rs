//! What one account may take of a host that it shares, and what deliveries may take of it. Owns these rules; that they are
//! kept is the work of `engine`, `deliver`, `spool` and `upload`.
//!
//! Invariant: memory for deliveries holds what each of them needs to go on at all.

use super::file::{self, File};
use super::plan::{SharesPlan, UploadPlan};
use super::rules::Rules;
use super::{ByteSize, Plan};
use crate::limits::{DELIVERY_CHUNK_BYTES, LOOK_BACKS_PER_ACCOUNT_MAX, OBJECTS_IN_FLIGHT_MAX};
use crate::ownership::ProofRules;
use std::time::Duration;

/// An account's share where there are others: two can fill the spool together, one alone cannot.
const SHARED_PERCENT: u64 = 50;

/// Objects of a capture on their way at once, unless more cores deliver: a store takes longer to complete one than to take it.
const OBJECTS_DEFAULT: u64 = 4;

/// What a delivery that goes on holds at least: chunks from the merge, a part on its way and one that fills.
fn bytes_min(part_bytes: u64) -> u64 {
    DELIVERY_CHUNK_BYTES + 2 * part_bytes
}

pub(super) fn shares(rules: &mut Rules, file: &File) -> SharesPlan {
    let (spool, store) = (&file.spool, &file.store);
    let default = if file.account.len() > 1 { SHARED_PERCENT } else { 100 };
    let percent = |rules: &mut Rules, key: &str, value, why| rules.range(key, value, (1, 100), why);
    let why = "of spool.bytes_max, for each account";
    let account_percent =
        percent(rules, "spool.account_percent", spool.account_percent.unwrap_or(default), why);
    let why = "of an account's share";
    let failed_percent = percent(rules, "spool.failed_percent", spool.failed_percent, why);
    let simple_percent = percent(rules, "spool.simple_percent", spool.simple_percent, why);
    let (key, why) = ("spool.failed_seconds_max", "up to a year");
    let failed = rules.range(key, spool.failed_seconds_max, (0, 31_622_400), why);
    let why = "the list has 50, and each is about a kilobyte of the database";
    let jobs = rules.range("store.jobs_per_account_max", store.jobs_per_account_max, (50, 10_000_000), why);
    let days = rules.range("store.jobs_days_max", store.jobs_days_max, (1, 36_500), "a day to a century");
    let why = "none could ever be uploaded without one";
    let waiting =
        rules.range("capture.waiting_per_account", file.capture.waiting_per_account, (1, 100_000), why);
    SharesPlan {
        account_percent,
        failed_percent,
        failed_time: Duration::from_secs(failed),
        simple_percent,
        waiting_per_account: waiting as usize,
        jobs_per_account_max: jobs as usize,
        jobs_time: Duration::from_secs(days * 86_400),
        look_back_interval: Duration::from_secs(file.capture.simple_interval_seconds)
            / LOOK_BACKS_PER_ACCOUNT_MAX as u32,
    }
}

/// The memory of all deliveries at once, of which what is beyond each one's need is for more parts and objects.
pub(super) fn deliveries(
    rules: &mut Rules,
    upload: &file::Upload,
    (captures_max, delivery_cores): (usize, usize),
    plan: UploadPlan,
) -> UploadPlan {
    let bounds = (1, 1024);
    let why = "each holds buffers and threads";
    let host = rules.range("upload.deliveries_max", upload.deliveries_max, bounds, why);
    let (key, why) = ("upload.deliveries_per_account", "of upload.deliveries_max");
    let account = rules.range(key, upload.deliveries_per_account, (1, host), why);
    let (most, why) = (OBJECTS_IN_FLIGHT_MAX as u64, "each holds 8 MiB, two parts and two threads");
    let objects = upload.objects_in_flight.unwrap_or((delivery_cores as u64).clamp(OBJECTS_DEFAULT, most));
    let objects = rules.range("upload.objects_in_flight", objects, (1, most), why);
    let why = "100 for deliveries that never stand back";
    let wait_percent = rules.range("upload.wait_percent", upload.wait_percent, (1, 100), why);
    let why = "a percentage; with 0 a spool that is nearly full would only fill further";
    let share_percent = rules.range("upload.share_percent", upload.share_percent, (1, 100), why);
    let why = "a slow link needs a minute for a part";
    let turn = rules.range("upload.turn_seconds", upload.turn_seconds, (1, 3600), why);
    let (key, why) = ("upload.ending_seconds_max", "a second to a week");
    let ending = rules.range(key, upload.ending_seconds_max, (1, 604_800), why);
    let (key, why) = ("upload.challenge_interval_seconds", "zero for no such rule, up to an hour");
    let challenge = rules.range(key, upload.challenge_interval_seconds, (0, 3600), why);
    let (key, why) = ("upload.proof_seconds_max", "zero for all time, or a minute to ten years");
    let age = rules.range(key, upload.proof_seconds_max, (0, 315_576_000), why);
    if (1..60).contains(&age) {
        rules.wrong(key, age, format!("use {why}"));
    }
    let proofs = ProofRules {
        buckets: upload.require_validation,
        files: upload.require_file_validation,
        age_max: (age > 0).then(|| Duration::from_secs(age)),
    };
    let part_bytes = plan.stores.s3.part_bytes;
    let least = (captures_max as u64 + host) * bytes_min(part_bytes);
    let more = host * (plan.stores.s3.parts_in_flight as u64 - 1) * part_bytes;
    let memory = upload.memory_bytes_max.map_or(least + more, |size| size.0);
    if memory < least {
        let advice = format!(
            "use at least {}: {captures_max} captures (capture.captures_max) and {host} deliveries (upload.deliveries_max) hold \
             two parts each (upload.part_bytes) and {} beside them",
            ByteSize(least),
            ByteSize(DELIVERY_CHUNK_BYTES)
        );
        rules.wrong("upload.memory_bytes_max", ByteSize(memory), advice);
    }
    let mut stores = plan.stores;
    stores.s3.parts_extra = (memory.saturating_sub(least) / part_bytes) as usize;
    UploadPlan {
        stores,
        objects_in_flight: objects as usize,
        deliveries_max: host as usize,
        deliveries_per_account: account as usize,
        turn: Duration::from_secs(turn),
        wait_percent,
        ending_max: Duration::from_secs(ending),
        share_percent,
        memory_bytes: memory,
        challenge_interval: Duration::from_secs(challenge),
        proofs,
        ..plan
    }
}

impl Plan {
    /// The most that one account may have on the spool, in bytes.
    #[must_use]
    pub fn account_bytes_max(&self) -> u64 {
        self.spool.share_bytes_max
    }

    /// Of that, the most that the files of its simple captures may have.
    #[must_use]
    pub fn simple_bytes_max(&self) -> u64 {
        self.spool.share_bytes_max / 100 * self.shares.simple_percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, String> {
        let port = "[[port]]\ndevice = \"net_null0\"\n";
        Plan::parse(&format!("{text}\n{port}")).map_err(|problems| problems.to_string())
    }

    #[test]
    fn an_account_alone_may_fill_the_spool_and_one_of_many_half_of_it() {
        let account = |id: &str| {
            format!("[[account]]\nid = \"{id}\"\n[[account.credential]]\ntoken_sha256 = \"{:064}\"\n", 0)
        };
        let spool = "[spool]\nbytes_max = \"1GiB\"\n";
        let share = |accounts: &str, more: &str| {
            plan(&format!("{spool}{more}{accounts}")).unwrap().account_bytes_max()
        };
        let (one, two) = (account("a"), account("a") + &account("b"));
        assert_eq!(share(&one, ""), 1 << 30);
        assert_eq!(share(&two, ""), (1 << 30) / 100 * 50);
        assert_eq!(share(&two, "account_percent = 70\n"), (1 << 30) / 100 * 70);
    }

    #[test]
    fn as_many_objects_are_on_their_way_as_cores_deliver_and_never_fewer_than_four_unless_that_is_said() {
        let objects = |text: &str| plan(text).unwrap().upload.objects_in_flight;
        let cores = "[cores]\nworkers = [9]\nwriters = [0]\ndelivery = [0, 1, 2, 3, 4, 5]\n";
        assert_eq!((objects(""), objects(cores)), (4, 6));
        assert_eq!(objects(&format!("{cores}[upload]\nobjects_in_flight = 1\n")), 1);
        let problems = plan("[cores]\nworkers = [1]\ndelivery = [0, 1]\n[upload]\nobjects_in_flight = 65\n");
        let problems = problems.unwrap_err();
        assert!(
            problems.contains("cores.delivery = 1") && problems.contains("objects_in_flight"),
            "{problems}"
        );
    }

    #[test]
    fn memory_of_deliveries_is_what_all_of_them_need_and_the_rest_is_for_parts_more() {
        let text = "[capture]\ncaptures_max = 8\n[upload]\ndeliveries_max = 4\npart_bytes = \"8MiB\"\nparts_in_flight = 4\n";
        let upload = plan(text).unwrap().upload;
        assert_eq!(upload.memory_bytes, (8 + 4) * (24 << 20) + 4 * 3 * (8 << 20));
        assert_eq!(upload.stores.s3.parts_extra, 12);
        let upload = plan(&format!("{text}memory_bytes_max = \"288MiB\"\n")).unwrap().upload;
        assert_eq!((upload.memory_bytes, upload.stores.s3.parts_extra), (288 << 20, 0));
        let problems = plan(&format!("{text}memory_bytes_max = \"287MiB\"\n")).unwrap_err();
        assert!(problems.contains("288MiB") && problems.contains("captures_max"), "{problems}");
    }
}
