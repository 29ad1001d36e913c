//! Time stamps of a real authority (`openssl ts`), and everything that such an answer may not be.

use super::*;
use crate::tsa::{Mood, Tsa};
use cms::cert::x509::Certificate;
use der::Decode as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::PathBuf;
use std::time::Duration;

const TEXT: &[u8] = b"{\"version\":1}\n";

fn start(key: &str) -> Option<Tsa> {
    Tsa::start(key).inspect_err(|error| crate::skip::skip("openssl", error)).ok()
}

fn authority(tsa: &Tsa, anchors: Option<PathBuf>) -> Authority {
    let (proxy, ca_file) = (None, None);
    let config = AuthorityConfig { url: tsa.url(), anchors, patience: Duration::ZERO, proxy, ca_file };
    Authority::new(&config).unwrap()
}

#[tokio::test]
async fn an_authority_s_answer_is_one_for_these_bytes_and_openssl_agrees() {
    for key in ["rsa:2048", "ec"] {
        let Some(tsa) = start(key) else { return };
        let (answer, stamp) = authority(&tsa, Some(tsa.ca())).ask(TEXT).await.unwrap();
        let off = stamp.time.duration_since(jiff::Timestamp::now()).as_secs().abs();
        assert!(off < 60, "{stamp:?}");
        assert_eq!(
            (stamp.accuracy, stamp.signer.as_str()),
            (Some(Duration::from_millis(1500)), "CN=TestTSA")
        );
        let dir = tempfile::tempdir().unwrap();
        let (data, file) = (dir.path().join("m.json"), dir.path().join("m.json.tsr"));
        std::fs::write(&data, TEXT).unwrap();
        std::fs::write(&file, &answer).unwrap();
        tsa.verifies(&data, &file).unwrap();
        let anchors = Anchors::load(&tsa.ca()).unwrap();
        assert_eq!(check(&answer, TEXT, None, Some(&anchors)).unwrap(), stamp);
        let other = check(&answer, b"{\"version\":2}\n", None, Some(&anchors));
        assert!(matches!(other, Err(StampError::Imprint)), "{other:?}");
        // Any byte of it: no answer that was changed says another time.
        for at in 0..answer.len() {
            let mut changed = answer.to_vec();
            changed[at] ^= 1;
            if let Ok(said) = check(&changed, TEXT, None, Some(&anchors)) {
                assert_eq!(said, stamp, "byte {at}");
            }
        }
        for len in 0..answer.len() {
            assert!(check(&answer[..len], TEXT, None, Some(&anchors)).is_err());
        }
    }
}

#[tokio::test]
async fn the_answer_of_another_authority_or_to_another_request_does_not_count() {
    let Some(tsa) = start("ec") else { return };
    let Some(other) = start("ec") else { return };
    let (answer, _) = authority(&tsa, None).ask(TEXT).await.unwrap();
    let anchors = Anchors::load(&other.ca()).unwrap();
    let foreign = check(&answer, TEXT, None, Some(&anchors));
    assert!(matches!(foreign, Err(StampError::Chain(_))), "{foreign:?}");
    let refused = authority(&tsa, Some(other.ca())).ask(TEXT).await.unwrap_err();
    assert!(matches!(refused, StampError::Chain(_)), "{refused}");
    // The same bytes, and an answer of before.
    tsa.set(Mood::Again);
    let again = authority(&tsa, None).ask(TEXT).await.unwrap_err();
    assert!(matches!(again, StampError::Nonce), "{again}");
    let wrong = authority(&tsa, None).ask(b"other bytes").await.unwrap_err();
    assert!(matches!(wrong, StampError::Imprint), "{wrong}");
}

#[tokio::test]
async fn whatever_an_authority_does_is_an_error_in_bounded_time_and_nobody_else_is_asked() {
    let Some(tsa) = start("ec") else { return };
    let Some(other) = start("ec") else { return };
    let authority = authority(&tsa, None);
    // `PKIStatus` 2, rejection, with words.
    let rejects =
        [&[0x30, 0x10, 0x30, 0x0e, 0x02, 0x01, 0x02, 0x30, 0x09, 0x0c, 0x07][..], b"no\x1b[2J!"].concat();
    for (mood, words) in [
        (Mood::Gone, "gives no answer"),
        (Mood::Busy, "refuses: HTTP 503"),
        (Mood::Elsewhere(other.url()), "refuses: HTTP 302"),
        (Mood::Says(b"<html>".to_vec()), "not one of RFC 3161"),
        (Mood::Says(Vec::new()), "not one of RFC 3161"),
        (Mood::Says(vec![0x30; 1 << 20]), "larger than any time stamp"),
        (Mood::Says(rejects), "refuses: no\\u{1b}[2J!"),
    ] {
        tsa.set(mood.clone());
        let error = authority.ask(TEXT).await.unwrap_err().to_string();
        assert!(error.contains(words), "{mood:?}: {error}");
    }
    assert_eq!((tsa.asked(), other.asked()), (7, 0));
}

#[test]
fn an_authority_that_was_away_is_waited_for_once_until_it_is_back() {
    let _installed_already = rustls::crypto::ring::default_provider().install_default();
    let config = AuthorityConfig {
        url: "http://127.0.0.1:9/".to_owned(),
        anchors: None,
        patience: Duration::from_secs(60),
        proxy: None,
        ca_file: None,
    };
    let authority = Authority::new(&config).unwrap();
    assert_eq!(authority.patience(), Duration::from_secs(60));
    authority.ended(false);
    assert_eq!(authority.patience(), Duration::ZERO);
    authority.ended(true);
    assert_eq!(authority.patience(), Duration::from_secs(60));
    let none = AuthorityConfig { anchors: Some(PathBuf::from("/nowhere.pem")), ..config };
    assert!(Authority::new(&none).unwrap_err().to_string().contains("/nowhere.pem"));
}

#[test]
fn an_authority_s_certificate_is_for_time_stamping_alone_and_says_so_critically() {
    let dir = tempfile::tempdir().unwrap();
    for (usage, words) in [
        ("critical,timeStamping", None),
        ("timeStamping", Some("not critical")),
        ("critical,serverAuth,timeStamping", Some("for other purposes")),
        ("anyExtendedKeyUsage", Some("for other purposes")),
        ("", Some("does not say")),
    ] {
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -out c -subj /CN=T"
                .split(' '),
        );
        if !usage.is_empty() {
            openssl.args(["-addext", &format!("extendedKeyUsage={usage}")]);
        }
        match openssl.current_dir(dir.path()).output() {
            Err(error) => return crate::skip::skip("openssl", error),
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        }
        let pem = std::fs::read(dir.path().join("c")).unwrap();
        let bytes = CertificateDer::from_pem_slice(&pem).unwrap();
        let said = token::stamps_alone(&Certificate::from_der(&bytes).unwrap());
        match (said, words) {
            (Ok(()), None) => {}
            (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{usage}: {error}"),
            other => panic!("{usage}: {other:?}"),
        }
    }
    let missing = Anchors::load(&dir.path().join("none.pem")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read ") && missing.contains("none.pem"), "{missing}");
}
