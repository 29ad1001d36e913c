//! `trawl store backup` of the real process, while it writes and while it is stopped, and what a copy is worth.

use crate::trawl::{Setup, Trawl};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

fn command(trawl: &Trawl, file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trawl"));
    command.args(["store", "backup", "--config"]).arg(trawl.config()).arg(file);
    command
}

fn backup(trawl: &Trawl, file: &Path) -> Output {
    command(trawl, file).output().unwrap()
}

fn simple(trawl: &Trawl) -> String {
    trawl.create(&json!({"system": "magic-transit", "type": "simple", "time_limit": 60, "packet_limit": 3}))
}

fn ids(trawl: &Trawl) -> Vec<String> {
    let listed = trawl.ask("GET", "?limit=100", &[]).result();
    listed.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

fn stop(trawl: &mut Trawl) {
    trawl.signal(rustix::process::Signal::TERM);
    assert!(trawl.wait(Duration::from_secs(60)).success());
}

#[test]
fn a_copy_of_a_store_that_is_written_to_is_whole_and_restores_what_was_there() {
    let mut trawl = Setup { capture: "waiting_per_account = 100", ..Setup::replay() }.start();
    let first: Vec<_> = (0..5).map(|_| simple(&trawl)).collect();
    first.iter().for_each(|id| drop(trawl.ended(id)));
    let folder = tempfile::tempdir().unwrap();
    let (file, stopped) = (folder.path().join("copy.db"), folder.path().join("stopped.db"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut made = 0;
            while !done.load(SeqCst) && made < 60 {
                trawl.ended(&simple(&trawl));
                made += 1;
            }
        });
        for round in 0..5 {
            let file = folder.path().join(format!("round{round}.db"));
            let copied = backup(&trawl, &file);
            assert!(copied.status.success(), "{copied:?} {}", trawl.log());
        }
        assert!(backup(&trawl, &file).status.success());
        done.store(true, SeqCst);
        writer.join().unwrap();
    });
    let again = backup(&trawl, &file);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("is there already"), "{again:?}");
    let all = ids(&trawl);
    stop(&mut trawl);
    // Stopped, it is copied too.
    assert!(backup(&trawl, &stopped).status.success());
    for (copy, at_least) in [(&file, first.len()), (&stopped, all.len())] {
        let store = trawl.folder().join("trawl.db");
        std::fs::remove_file(&store).unwrap();
        std::fs::copy(copy, &store).unwrap();
        trawl.restart();
        let restored = ids(&trawl);
        assert!(restored.len() >= at_least && restored.iter().all(|id| all.contains(id)), "{restored:?}");
        assert!(first.iter().all(|id| restored.contains(id)));
        let id = simple(&trawl);
        assert!(trawl.ended(&id).status.ended());
        stop(&mut trawl);
    }
}

#[test]
fn a_backup_that_is_killed_leaves_no_file_of_its_name_or_a_whole_one() {
    let mut trawl = Setup { capture: "waiting_per_account = 100", ..Setup::replay() }.start();
    let id = simple(&trawl);
    trawl.ended(&id);
    let folder = tempfile::tempdir().unwrap();
    let mut whole: Vec<PathBuf> = Vec::new();
    for round in 0..30 {
        let file = folder.path().join(format!("copy{round}.db"));
        let mut process = command(&trawl, &file).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(round * 2));
        process.kill().unwrap();
        process.wait().unwrap();
        whole.extend(file.symlink_metadata().is_ok().then_some(file));
    }
    println!("{} of 30 were whole", whole.len());
    // The process that serves goes on, and the next copy comes.
    let file = folder.path().join("last.db");
    let copied = backup(&trawl, &file);
    assert!(copied.status.success(), "{copied:?} {}", trawl.log());
    whole.push(file);
    stop(&mut trawl);
    for copy in whole {
        let store = trawl.folder().join("trawl.db");
        std::fs::copy(copy, &store).unwrap();
        let listed = ::trawl::store::Embedded::open(&store).unwrap();
        drop(listed);
    }
    trawl.restart();
    assert_eq!(ids(&trawl), [id]);
    let odd = folder.path().join("fifo");
    mknodat(CWD, &odd, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert!(!backup(&trawl, &odd).status.success(), "what is there is not replaced, whatever it is");
    assert!(!backup(&trawl, &folder.path().join("none/copy.db")).status.success());
    trawl.finish();
}
