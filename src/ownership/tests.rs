//! Properties of challenges, in directories as buckets.

use super::*;
use crate::ownership::Vault;
use crate::store::Embedded;
use crate::upload::{R2Config, StoresConfig};
use tempfile::TempDir;

struct Host {
    dir: TempDir,
    ownership: Ownership,
    buckets: Arc<dyn BucketStore>,
}

fn host() -> Host {
    let dir = TempDir::new().unwrap();
    let stores = Stores::new(StoresConfig { allow_file: true, ..StoresConfig::default() }).unwrap();
    let buckets: Arc<dyn BucketStore> = Arc::new(Embedded::open(&dir.path().join("db")).unwrap());
    let keys = BucketKeys::new(Arc::clone(&buckets), None);
    let ownership = Ownership::new(Arc::clone(&buckets), Arc::new(stores), keys, Duration::from_secs(10));
    Host { ownership, buckets, dir }
}

impl Host {
    fn destination(&self, name: &str) -> Destination {
        Destination::File { dir: self.dir.path().join(name) }
    }

    fn content(&self, name: &str, bucket: &Bucket) -> String {
        std::fs::read_to_string(self.dir.path().join(name).join(&bucket.filename)).unwrap()
    }
}

fn account(name: &str) -> AccountId {
    AccountId(name.to_owned())
}

#[tokio::test]
async fn the_content_proves_and_the_name_does_not() {
    let host = host();
    let (a, place) = (account("a"), host.destination("one"));
    let bucket = host.ownership.create(a.clone(), &place, Sent::default()).await.unwrap();
    let content = host.content("one", &bucket);
    assert_eq!((content.len(), bucket.filename.len()), (64, "ownership-challenge-.txt".len() + 32));
    assert!(!host.ownership.is_proven(&a, &place).await.unwrap());
    let id = bucket.id.as_str();
    for wrong in [bucket.filename.as_str(), id, "", "x", &content[1..], &format!("{content}0")] {
        let error = host.ownership.validate(&a, &place, wrong).await.unwrap_err();
        assert!(matches!(error, OwnershipError::Wrong { .. }), "{wrong}: {error}");
        assert!(!error.to_string().contains(&content));
    }
    let proven = host.ownership.validate(&a, &place, &format!("{content}\n")).await.unwrap();
    assert_eq!(proof(&proven, Timestamp::now(), None), Proof::Success);
    assert_eq!(host.ownership.validate(&a, &place, &content).await.unwrap(), proven, "it may be repeated");
    assert!(host.ownership.is_proven(&a, &place).await.unwrap());
}

#[tokio::test]
async fn a_challenge_is_good_for_one_account_one_place_and_one_entry() {
    let host = host();
    let (a, b) = (account("a"), account("b"));
    let (one, two) = (host.destination("one"), host.destination("two"));
    let first = host.ownership.create(a.clone(), &one, Sent::default()).await.unwrap();
    let content = host.content("one", &first);
    // B never asked; then B has an entry of its own for the same place; then A one for another place.
    let unknown = host.ownership.validate(&b, &one, &content).await.unwrap_err();
    assert!(matches!(unknown, OwnershipError::NotFound));
    host.ownership.create(b.clone(), &one, Sent::default()).await.unwrap();
    host.ownership.create(a.clone(), &two, Sent::default()).await.unwrap();
    for (account, place) in [(&b, &one), (&a, &two)] {
        let error = host.ownership.validate(account, place, &content).await.unwrap_err();
        assert!(matches!(error, OwnershipError::Wrong { .. }), "{error}");
    }
    host.ownership.validate(&a, &one, &content).await.unwrap();
    assert!(!host.ownership.is_proven(&b, &one).await.unwrap());
    assert!(!host.ownership.is_proven(&a, &two).await.unwrap());
}

#[tokio::test]
async fn a_second_create_voids_the_first_challenge_until_one_is_answered() {
    let host = host();
    let (a, place) = (account("a"), host.destination("one"));
    let first = host.ownership.create(a.clone(), &place, Sent::default()).await.unwrap();
    let content_of_first = host.content("one", &first);
    let second = host.ownership.create(a.clone(), &place, Sent::default()).await.unwrap();
    assert_ne!(first.id, second.id);
    while host.dir.path().join("one").join(&first.filename).exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(host.ownership.list(&a).await.unwrap(), std::slice::from_ref(&second));
    host.ownership.validate(&a, &place, &content_of_first).await.unwrap_err();
    let proven = host.ownership.validate(&a, &place, &host.content("one", &second)).await.unwrap();
    assert_eq!(
        host.ownership.create(a.clone(), &place, Sent::default()).await.unwrap(),
        proven,
        "a proven place stays proven"
    );
    host.ownership.remove(&a, proven.id).await.unwrap();
    assert!(!host.ownership.is_proven(&a, &place).await.unwrap());
}

#[tokio::test]
async fn a_challenge_ends_by_itself() {
    let host = host();
    let (a, place) = (account("a"), host.destination("one"));
    let bucket = host.ownership.create(a.clone(), &place, Sent::default()).await.unwrap();
    let content = host.content("one", &bucket);
    let late = Bucket { expires: Timestamp::now(), ..bucket.clone() };
    host.buckets.replace(&bucket, &late).unwrap();
    let error = host.ownership.validate(&a, &place, &content).await.unwrap_err();
    assert!(matches!(error, OwnershipError::Expired(_)), "{error}");
    assert_eq!(proof(&late, Timestamp::now(), None), Proof::Failed);
    assert!(!host.ownership.is_proven(&a, &place).await.unwrap());
}

#[tokio::test]
async fn a_destination_that_cannot_be_written_leaves_no_entry() {
    let host = host();
    std::fs::write(host.dir.path().join("file"), "").unwrap();
    let error =
        host.ownership.create(account("a"), &host.destination("file/x"), Sent::default()).await.unwrap_err();
    assert!(matches!(error, OwnershipError::Destination(_)), "{error}");
    assert!(host.ownership.list(&account("a")).await.unwrap().is_empty());
}

#[test]
fn a_slash_at_the_end_makes_no_other_place() {
    let same = |one: &str, other: &str| {
        place(&Destination::parse(one).unwrap()) == place(&Destination::parse(other).unwrap())
    };
    assert!(same("s3://bucket?region=x", "s3://bucket/?region=x"));
    assert!(same("s3://bucket/a?region=x", "s3://bucket/a/?region=x"));
    assert!(!same("s3://bucket/a?region=x", "s3://bucket?region=x"));
    assert!(!same("s3://bucket?region=x", "s3://bucket?region=y"));
}

/// A host that keeps keys and knows one R2 endpoint, which answers nobody.
fn host_with_keys() -> (Host, std::net::TcpListener) {
    let host = host();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Some(format!("http://{}", silent.local_addr().unwrap()));
    let r2 = Some(R2Config { endpoint, credentials: None });
    let stores = Stores::new(StoresConfig { r2, ..StoresConfig::default() }).unwrap();
    let key = host.dir.path().join("key");
    std::fs::write(&key, [7; 32]).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let keys = BucketKeys::new(Arc::clone(&host.buckets), Some(Arc::new(Vault::load(&key).unwrap())));
    let (buckets, time) = (Arc::clone(&host.buckets), Duration::from_millis(200));
    (Host { ownership: Ownership::new(buckets, Arc::new(stores), keys, time), ..host }, silent)
}

const R2: &str = "r2://bucket?account-id=0123456789abcdef0123456789abcdef";

fn sent() -> S3Credentials {
    S3Credentials { access_key_id: "id".to_owned(), secret_access_key: "hush".to_owned() }
}

fn sent_keys() -> Sent {
    Sent { keys: Some(sent()), owner: None }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_given_up_and_leaves_no_entry() {
    let (host, _silent) = host_with_keys();
    let place = Destination::parse(R2).unwrap();
    let error = host.ownership.create(account("a"), &place, sent_keys()).await.unwrap_err();
    let unreachable = matches!(error, OwnershipError::Destination(UploadError::Unreachable { .. }));
    assert!(unreachable && !error.to_string().contains("hush"), "{error}");
    assert!(host.ownership.list(&account("a")).await.unwrap().is_empty());
}

#[tokio::test]
async fn keys_serve_the_account_that_sent_them_and_the_place_that_they_came_with() {
    let (host, _silent) = host_with_keys();
    let (a, b, place_a) = (account("a"), account("b"), Destination::parse(R2).unwrap());
    let entry = Bucket {
        keys: host.ownership.seal(&a, &place(&place_a), &sent()).unwrap(),
        account: a.clone(),
        place: place(&place_a),
        destination: R2.to_owned(),
        id: CaptureId::random(),
        filename: "f".to_owned(),
        submitted: Timestamp::now(),
        expires: Timestamp::now(),
        validated: None,
        challenge_sha256: [0; 32],
        owner: None,
        lost: None,
        is_readable: true,
    };
    host.buckets.put(&entry, 8).unwrap();
    let keys = &host.ownership.keys;
    let kept = keys.terms(&a, &place_a).await.unwrap().keys.unwrap();
    assert_eq!(keys.open(&a, &place_a, &kept).unwrap(), sent());
    assert_eq!(keys.terms(&b, &place_a).await.unwrap().keys, None);
    let other = Destination::parse(&R2.replace("bucket", "other")).unwrap();
    assert_eq!(keys.terms(&a, &other).await.unwrap().keys, None);
    for (account, place) in [(&b, &place_a), (&a, &other)] {
        assert!(matches!(keys.open(account, place, &kept), Err(UploadError::Keys { .. })));
    }
    // B's entry for the same bucket has no keys, and A's are none of B's.
    let error = host.ownership.create(b, &place_a, Sent::default()).await.unwrap_err();
    assert!(matches!(error, OwnershipError::Destination(UploadError::Keys { .. })), "{error}");
}

#[tokio::test]
async fn keys_are_refused_where_nothing_can_keep_them() {
    let host = host();
    let place = Destination::parse(R2).unwrap();
    let error = host.ownership.create(account("a"), &place, sent_keys()).await.unwrap_err();
    assert!(matches!(error, OwnershipError::NoKeyFile), "{error}");
}

/// A host where directories need proofs, which hold for a day.
fn demanding() -> Host {
    let host = host();
    let rules = ProofRules { buckets: true, files: true, age_max: Some(Duration::from_secs(86_400)) };
    let keys = host.ownership.keys.clone().requiring(rules);
    Host { ownership: Ownership { keys, ..host.ownership }, ..host }
}

impl Host {
    /// Adds and proves a place.
    async fn prove(&self, account: &AccountId, name: &str) -> Bucket {
        let place = self.destination(name);
        let bucket = self.ownership.create(account.clone(), &place, Sent::default()).await.unwrap();
        self.ownership.validate(account, &place, &self.content(name, &bucket)).await.unwrap()
    }

    /// The store of a place as a delivery opens it.
    async fn looked_at(&self, account: &AccountId, name: &str) -> LookedAt {
        let destination = self.destination(name);
        let proof = self.ownership.keys.terms(account, &destination).await.unwrap().proof.unwrap();
        let store = Arc::from(self.ownership.stores.open(&destination).await.unwrap());
        // Nothing was looked at yet, as after a start.
        let keys = BucketKeys { seen: Arc::default(), ..self.ownership.keys.clone() };
        LookedAt::new(store, &keys, account, &destination, vec![proof])
    }
}

#[tokio::test]
async fn a_proof_ages_and_an_old_answer_renews_nothing() {
    let host = demanding();
    let (a, place) = (account("a"), host.destination("one"));
    let proven = host.prove(&a, "one").await;
    let day = SignedDuration::from_hours(24);
    let old = Bucket { validated: Some(Timestamp::now() - day), ..proven.clone() };
    host.buckets.replace(&proven, &old).unwrap();
    assert!(!host.ownership.is_proven(&a, &place).await.unwrap());
    let standing = host.ownership.standing(&old);
    assert!(matches!(standing, Proof::Aged(_)) && ended(&old, standing).unwrap().contains("new challenge"));
    assert_eq!(proof(&old, Timestamp::now(), None), Proof::Success, "unless it holds for all time");
    assert_eq!(host.ownership.keys.terms(&a, &place).await.unwrap().proof, None);
    let error = host.ownership.validate(&a, &place, &host.content("one", &old)).await.unwrap_err();
    assert!(matches!(error, OwnershipError::Ended(_)), "{error}");
    let again = host.prove(&a, "one").await;
    assert_ne!(again.id, old.id);
    assert!(host.ownership.is_proven(&a, &place).await.unwrap());
}

#[tokio::test]
async fn a_challenge_that_has_gone_or_changed_ends_the_proof_and_nothing_is_written() {
    for changed in [None, Some("0".repeat(64)), Some("0".repeat(1000))] {
        let host = demanding();
        let (a, place) = (account("a"), host.destination("one"));
        let proven = host.prove(&a, "one").await;
        let path = |name: &str| host.dir.path().join("one").join(name);
        host.looked_at(&a, "one").await.put("before", Bytes::from_static(b"x")).await.unwrap();

        let store = host.looked_at(&a, "one").await;
        match &changed {
            None => std::fs::remove_file(path(&proven.filename)).unwrap(),
            Some(text) => std::fs::write(path(&proven.filename), text).unwrap(),
        }
        let error = store.put("after", Bytes::from_static(b"x")).await.unwrap_err();
        assert!(matches!(error, UploadError::Unproven { .. }) && error.may_pass(), "{error}");
        assert!(store.probe().await.is_err() && !path("after").exists());
        assert!(!host.ownership.is_proven(&a, &place).await.unwrap());
        let entry = host.ownership.entry(&a, &place).await.unwrap().unwrap();
        assert!(matches!(host.ownership.standing(&entry), Proof::Lost(_)));

        let again = host.prove(&a, "one").await;
        assert!(again.id != proven.id && again.lost.is_none());
        host.looked_at(&a, "one").await.put("after", Bytes::from_static(b"x")).await.unwrap();
    }
}

#[tokio::test]
async fn a_challenge_that_the_host_could_never_read_is_not_looked_at_and_its_proof_ages() {
    let host = demanding();
    let (a, place) = (account("a"), host.destination("one"));
    let readable = host.prove(&a, "one").await;
    assert!(readable.is_readable);
    let proven = Bucket { is_readable: false, ..readable.clone() };
    host.buckets.replace(&readable, &proven).unwrap();
    std::fs::remove_file(host.dir.path().join("one").join(&proven.filename)).unwrap();
    host.looked_at(&a, "one").await.put("object", Bytes::from_static(b"x")).await.unwrap();
    let day = SignedDuration::from_hours(24);
    let old = Bucket { validated: Some(Timestamp::now() - day), ..proven.clone() };
    host.buckets.replace(&proven, &old).unwrap();
    assert!(!host.ownership.is_proven(&a, &place).await.unwrap());
}

#[tokio::test]
async fn an_object_that_was_begun_in_time_is_not_finished_in_another_bucket() {
    let host = demanding();
    let a = account("a");
    let proven = host.prove(&a, "one").await;
    let store = host.looked_at(&a, "one").await;
    let mut writer = store.begin("object").await.unwrap();
    writer.write(Bytes::from_static(b"x")).await.unwrap();
    std::fs::remove_file(host.dir.path().join("one").join(&proven.filename)).unwrap();
    store.forget();
    assert!(matches!(writer.finish().await, Err(UploadError::Unproven { .. })));
    assert!(!host.dir.path().join("one/object").exists());
}
