//! The API over TLS: the real binary with a certificate that the test's own authority made.

use crate::http;
use crate::trawl::{ACCOUNT, Setup, TOKEN};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::Certificate;
use rustix::process::Signal;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

#[test]
fn the_api_answers_over_tls_to_who_trusts_its_authority_and_not_in_plain() {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    let trawl = Setup::replay().launch(|config, dir| {
        std::fs::write(dir.join("cert.pem"), leaf.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::set_permissions(dir.join("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let tls = format!(
            "[api]\ntls_cert = \"{dir}/cert.pem\"\ntls_key = \"{dir}/key.pem\"\n",
            dir = dir.display()
        );
        config.replacen("[api]\n", &tls, 1)
    });
    let url = format!("https://{}/client/v4/accounts/{ACCOUNT}/pcaps", trawl.listen());
    // One runtime for all, as the client's connections belong to it.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _may_be_set_by_another_test = rustls::crypto::ring::default_provider().install_default();
    let client = |roots: Vec<Certificate>| {
        reqwest::Client::builder().tls_certs_only(roots).timeout(Duration::from_secs(10)).build().unwrap()
    };
    let knows = client(vec![Certificate::from_pem(authority.pem().as_bytes()).unwrap()]);
    let ask = |client: &reqwest::Client| {
        runtime.block_on(async {
            let answer = client.get(&url).bearer_auth(TOKEN).send().await?;
            Ok::<_, reqwest::Error>((answer.status().as_u16(), answer.json::<Value>().await?))
        })
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let (status, body) = loop {
        match ask(&knows) {
            Ok(answer) => break answer,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}: {}", trawl.log()),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!((status, &body["success"]), (200, &Value::Bool(true)), "{body}");

    let stranger = CertificateParams::new(Vec::new()).unwrap();
    let stranger = stranger.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let error = ask(&client(vec![Certificate::from_pem(stranger.pem().as_bytes()).unwrap()])).unwrap_err();
    assert!(error.is_connect(), "{error:?}");

    let token = format!("Bearer {TOKEN}");
    let path = format!("/client/v4/accounts/{ACCOUNT}/pcaps");
    let plain = http::ask(trawl.listen(), "GET", &path, &[("Authorization", &token)], &[]);
    let plain = plain.unwrap();
    assert!(plain.status == 400 && plain.refusal().contains("https://"), "{plain:?}");
    assert!(ask(&knows).is_ok(), "and it goes on");

    // Renewed, by an authority that nobody here trusts: new connections show it once SIGHUP came.
    let renewed = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(trawl.folder().join("cert.pem"), renewed.self_signed(&key).unwrap().pem()).unwrap();
    assert!(ask(&client(vec![Certificate::from_pem(authority.pem().as_bytes()).unwrap()])).is_ok());
    trawl.signal(Signal::HUP);
    trawl.until_log("the config is read again", Duration::from_secs(20));
    let again = client(vec![Certificate::from_pem(authority.pem().as_bytes()).unwrap()]);
    assert!(ask(&again).unwrap_err().is_connect());
    trawl.finish();
}
