//! Files of simple captures whose time ends while no process is there to see it.

use crate::outcome::files_below;
use crate::trawl::Setup;
use serde_json::json;
use std::time::{Duration, Instant, SystemTime};
use trawl::job::Status;

#[test]
fn what_ran_out_while_the_process_was_down_goes_at_its_start_and_what_did_not_stays() {
    let keep = |seconds: u64| {
        move |config: String, _: &std::path::Path| {
            let keys = format!("[capture]\nsimple_retention_seconds = {seconds}\n");
            config.replacen("[capture]\n", &keys, 1)
        }
    };
    let mut trawl = Setup::replay().start_with(keep(3600));
    let request = json!({"system": "magic-transit", "type": "simple", "time_limit": 60, "packet_limit": 100});
    let simple = || {
        let id = trawl.create(&request);
        assert_eq!(trawl.ended(&id).status, Status::Success);
        id
    };
    let (old, new) = (simple(), simple());
    let dir = trawl.spool().join("simple");
    let of = |id: &str| {
        files_below(&dir).into_iter().filter(|path| path.to_string_lossy().contains(id)).collect::<Vec<_>>()
    };
    let files = |id: &str| of(id).len();
    assert!(files(&old) >= 2 && files(&new) >= 2, "pcap and manifest: {:?}", files_below(&dir));
    trawl.kill();
    // An hour passes for the one, and all but a minute of it for the other.
    for (id, age_seconds) in [(&old, 3601), (&new, 3540)] {
        for path in of(id) {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age_seconds)).unwrap();
        }
    }
    assert!(files(&old) >= 2, "nobody was there");
    trawl.restart();
    let until = Instant::now() + Duration::from_secs(20);
    while files(&old) > 0 {
        assert!(Instant::now() < until, "its files are still there: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(files(&new) >= 2, "its time is not over: {}", trawl.log());
    let gone = trawl.ask("GET", &format!("/{old}/download"), &[]);
    assert_eq!((gone.status, &gone.body["errors"][0]["code"]), (410, &json!(1025)), "{gone:?}");
    assert_eq!(trawl.ask("GET", &format!("/{old}"), &[]).result()["status"], "success", "what it was stays");
    trawl.finish();
}
