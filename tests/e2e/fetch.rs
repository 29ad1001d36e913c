//! `trawl capture fetch` and the pages of `trawl capture list` against the real server.

use crate::cli::{json_of, run};
use crate::trawl::{Setup, Trawl};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use trawl::deliver::SigningKey;
use trawl::job::Status;

fn objects(trawl: &Trawl) -> Vec<String> {
    let names = std::fs::read_dir(trawl.bucket()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> = names
        .filter(|path| path.extension().is_some_and(|end| end == "pcap"))
        .map(|path| path.display().to_string())
        .collect();
    names.sort();
    names
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// What is in a folder, hidden files too.
fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Runs a line of `bash` as the account, with `$TRAWL`.
fn bash(trawl: &Trawl, line: &str) -> Output {
    let mut bash = Command::new("bash");
    bash.args(["-c", line]).env("TRAWL", env!("CARGO_BIN_EXE_trawl"));
    bash.env("TRAWL_URL", format!("{}/client/v4", trawl.url()));
    bash.env("TRAWL_ACCOUNT", crate::trawl::ACCOUNT).env("TRAWL_TOKEN", crate::trawl::TOKEN).output().unwrap()
}

/// Spoils an object in four ways, and puts it right each time.
fn alter(object: &str, refused: impl Fn(bool)) {
    for change in ["flip", "cut", "longer", "gone"] {
        let before = std::fs::read(object).unwrap();
        let mut bytes = before.clone();
        let middle = bytes.len() / 2;
        match change {
            "flip" => bytes[middle] ^= 1,
            "cut" => bytes.truncate(middle),
            _ => bytes.extend([0; 16]),
        }
        match change {
            "gone" => std::fs::remove_file(object).unwrap(),
            _ => std::fs::write(object, &bytes).unwrap(),
        }
        refused(change == "gone");
        std::fs::write(object, before).unwrap();
    }
}

#[test]
fn a_capture_is_fetched_as_one_file_that_equals_the_merge_or_not_at_all() {
    let keys = tempfile::tempdir().unwrap();
    let (secret, public) = (keys.path().join("key"), keys.path().join("key.pub"));
    let key = SigningKey::create(&secret).unwrap();
    std::fs::write(&public, key.public().to_pem()).unwrap();
    let other = SigningKey::create(&keys.path().join("other")).unwrap();
    let stranger = keys.path().join("other.pub");
    std::fs::write(&stranger, other.public().to_pem()).unwrap();
    let more = format!("[manifest]\nsigning_key_file = \"{}\"\n", secret.display());
    let trawl = Setup { segment_bytes: "4MiB", more, ..Setup::replay() }.start();
    let mut request = trawl.request(json!({}));
    request["packet_limit"] = 100_000.into();
    let id = trawl.create(&request);
    assert_eq!(trawl.ended(&id).status, Status::Success);
    let objects = objects(&trawl);
    assert!(objects.len() > 1, "{objects:?}");
    let folder = tempfile::tempdir().unwrap();
    let (file, merged) = (folder.path().join("one.pcap"), folder.path().join("merged.pcap"));
    let (file_name, public) = (file.to_str().unwrap(), public.to_str().unwrap());
    let fetch = |more: &[&str]| run(&trawl, None, &[&["capture", "fetch", id.as_str()], more].concat());
    let fetched = fetch(&["-o", file_name, "--public-key", public]);
    assert!(fetched.status.success(), "{fetched:?}");
    let said = String::from_utf8_lossy(&fetched.stdout).into_owned();
    assert!(said.contains("100000 packets") && said.contains("signature and hashes are right"), "{said}");
    let mut merge = Command::new(env!("CARGO_BIN_EXE_trawl"));
    assert!(merge.arg("merge").arg("-o").arg(&merged).args(&objects).status().unwrap().success());
    let bytes = std::fs::read(&merged).unwrap();
    assert!(bytes == std::fs::read(&file).unwrap(), "it is not what `trawl merge` makes");
    let again = fetch(&["-o", file_name]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("is there already"));
    let piped = fetch(&["-o", "-"]);
    assert!(piped.status.success() && piped.stdout == bytes);
    // A reader that leaves early has what it wanted.
    let shell = format!("$TRAWL capture fetch {id} -o - | head -c 100 | wc -c; exit ${{PIPESTATUS[0]}}");
    let head = bash(&trawl, &shell);
    assert!(head.status.success() && String::from_utf8_lossy(&head.stdout).trim() == "100", "{head:?}");

    let full = folder.path().join("full.pcap");
    let full_name = full.to_str().unwrap();
    let refused = |more: &[&str], words: &str| {
        let output = fetch(&[&["-o", full_name], more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{words}: {output:?}");
        assert!(!is_there(&full) && names(folder.path()).len() == 2, "{:?}", names(folder.path()));
    };
    refused(&["--public-key", stranger.to_str().unwrap()], "is not the signature of this manifest");
    alter(&objects[1], |is_gone| {
        refused(&[], if is_gone { "pcap" } else { "is not the object of the manifest" })
    });
    // A disk without room: the error names the file, and nothing stays.
    let limited = format!("ulimit -f 1024; exec $TRAWL capture fetch {id} -o '{full_name}'");
    let limited = bash(&trawl, &limited);
    assert!(!limited.status.success() && !is_there(&full), "{limited:?}");
    let whole = fetch(&["-o", full_name]);
    assert!(
        whole.status.success() && std::fs::read(&full).unwrap() == bytes,
        "another try begins again: {whole:?}"
    );

    let running = trawl.create(&trawl.request(json!({"protocol": 17, "destination_port": 9})));
    let early = run(&trawl, None, &["capture", "fetch", &running, "-o", full_name, "--force"]);
    assert!(
        !early.status.success() && String::from_utf8_lossy(&early.stderr).contains("waits for its end"),
        "{early:?}"
    );
    assert!(std::fs::read(&full).unwrap() == bytes, "the file that was there stays");
    trawl.finish();
}

#[test]
fn simple_captures_are_fetched_whole_and_lists_go_beyond_fifty() {
    let trawl = Setup { capture: "waiting_per_account = 100", ..Setup::replay() }.start();
    let simple = json!({"system": "magic-transit", "type": "simple", "time_limit": 60, "packet_limit": 3});
    let mut ids = Vec::new();
    for _ in 0..55 {
        let id = trawl.create(&simple);
        trawl.until(&id, Duration::from_secs(30), |progress| progress.status.ended());
        ids.push(id);
    }
    let list = |more: &[&str]| {
        let listed = json_of(&run(&trawl, None, &[&["capture", "list", "--json"], more].concat()));
        let ids = listed.as_array().unwrap().iter().map(|capture| capture["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    let newest_first: Vec<_> = ids.iter().rev().cloned().collect();
    assert_eq!(list(&[]), newest_first[..50]);
    assert_eq!(list(&["--all"]), newest_first);
    assert_eq!(list(&["--limit", "53"]), newest_first[..53]);
    assert_eq!(list(&["--status", "success,failed", "--type", "simple", "--since", "1h"]).len(), 55);
    assert!(list(&["--type", "full"]).is_empty() && list(&["--status", "running"]).is_empty());
    assert!(list(&["--since", "2100-01-01T00:00:00Z"]).is_empty());
    let wrong = run(&trawl, None, &["capture", "list", "--status", "Done"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("simple.pcap");
    let fetch = ["capture", "fetch", &ids[0], "-o", file.to_str().unwrap()];
    let fetched = run(&trawl, None, &fetch);
    assert!(fetched.status.success(), "{fetched:?}");
    std::fs::remove_file(&file).unwrap();
    // The host's own file is damaged: what comes is not what the server says of it.
    let kept = trawl.spool().join("simple").join(format!("pcap_{}.pcap", ids[0]));
    let mut bytes = std::fs::read(&kept).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&kept, bytes).unwrap();
    let altered = run(&trawl, None, &fetch);
    let said = String::from_utf8_lossy(&altered.stderr).into_owned();
    assert!(!altered.status.success() && said.contains("is not the one of capture"), "{altered:?}");
    assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));
    trawl.finish();
}
