//! What is handed out of a release: the sums of its files and their signature. The package itself is tried by `scripts/test-package.sh`.

use crate::skip::skip;
use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn openssl(dir: &Path, arguments: &str) -> bool {
    Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().unwrap().status.success()
}

fn sums(dir: &Path, key: Option<&Path>) -> String {
    let mut script = Command::new(format!("{ROOT}/scripts/release.sh"));
    script.arg("--sums").arg(dir);
    if let Some(key) = key {
        script.arg("--key").arg(key);
    }
    let output = script.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_sums_of_a_release_are_signed_and_checked_by_two_commands_of_everybody() {
    if Command::new("openssl").arg("version").output().is_err() {
        return skip("openssl", "it is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let (files, key) = (dir.path().join("files"), dir.path().join("release.pem"));
    fs::create_dir(&files).unwrap();
    fs::write(files.join("trawl_1_amd64.deb"), "a package").unwrap();
    fs::write(files.join("trawl_1_amd64.cdx.json"), "{}").unwrap();
    assert!(sums(&files, None).contains("not signed"));
    assert!(fs::metadata(files.join("SHA256SUMS.sig")).is_err());
    assert!(openssl(dir.path(), "genpkey -algorithm ed25519 -out release.pem"));
    assert!(openssl(dir.path(), "pkey -in release.pem -pubout -out release.pub"));
    assert_eq!(sums(&files, Some(&key)), "");
    let verify = "pkeyutl -verify -pubin -inkey ../release.pub -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig";
    let whole = || {
        let sums =
            Command::new("sha256sum").args(["--strict", "-c", "SHA256SUMS"]).current_dir(&files).output();
        (openssl(&files, verify), sums.unwrap().status.success())
    };
    assert_eq!(whole(), (true, true));
    assert_eq!(fs::read_to_string(files.join("SHA256SUMS")).unwrap().lines().count(), 2);
    fs::write(files.join("trawl_1_amd64.deb"), "a pakcage").unwrap();
    assert_eq!(whole(), (true, false));
    let changed = fs::read_to_string(files.join("SHA256SUMS")).unwrap().replacen('a', "b", 1);
    fs::write(files.join("SHA256SUMS"), changed).unwrap();
    assert!(!whole().0);
    // Again over what is there: the sums are no file of the release.
    sums(&files, Some(&key));
    assert_eq!(whole(), (true, true));
}
