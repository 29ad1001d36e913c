//! What `destination_conf` takes and refuses.

use super::*;
use proptest::prelude::*;

#[test]
fn what_is_taken_is_given_back_byte_for_byte() {
    for uri in [
        "s3://pcaps-bucket?region=us-east-1",
        "s3://pcaps-bucket/?region=us-east-1",
        "s3://pcaps-bucket/py?region=auto",
        "s3://a.b-c/deep/er/?region=eu-central-1",
        "s3://bucket/dt=2026/x!'()*+,y?region=us-east-1",
        "r2://bucket?account-id=0123456789abcdef0123456789abcdef",
        "r2://bucket/a/b/?account-id=0123456789abcdef0123456789abcdef",
        "gs://bucket-test",
        "gs://bucket_test.example/",
        "gs://bucket/deep/er/",
        "file:///var/lib/trawl/out",
        "file:///tmp/with space/ünï/",
    ] {
        let destination = Destination::parse(uri).unwrap();
        assert_eq!(destination.to_string(), uri);
        let json = serde_json::to_string(&destination).unwrap();
        assert_eq!(json, format!("{uri:?}"));
        assert_eq!(serde_json::from_str::<Destination>(&json).unwrap(), destination);
    }
}

#[test]
fn the_parts_of_an_s3_destination_are_told_apart() {
    let expected = Destination::S3 {
        bucket: "test-bucket".to_owned(),
        directory: "a/b".to_owned(),
        region: "us-east-1".to_owned(),
    };
    assert_eq!(Destination::parse("s3://test-bucket/a/b?region=us-east-1"), Ok(expected));
}

#[test]
fn keys_are_taken_out_of_an_r2_destination_and_shown_nowhere() {
    let place = "r2://bucket/dir?account-id=0123456789abcdef0123456789abcdef";
    let uri = format!("{place}&access-key-id=k&secret-access-key=hush");
    let (destination, keys) = Destination::parse_with_keys(&uri).unwrap();
    assert_eq!(destination.to_string(), place);
    assert!(!format!("{destination:?} {keys:?}").contains("hush"));
    let keys = keys.unwrap();
    assert_eq!((keys.access_key_id.as_str(), keys.secret_access_key.as_str()), ("k", "hush"));
    assert_eq!(Destination::parse_with_keys(place).unwrap(), (destination, None));

    assert!(Destination::parse(&uri).is_err(), "keys stand only where ownership is proved");
    let id = "account-id=0123456789abcdef0123456789abcdef";
    for query in [
        "access-key-id=k&secret-access-key=hush",
        "account-id=0123&access-key-id=k&secret-access-key=hush",
        &format!("{id}&access-key-id=k"),
        &format!("{id}&secret-access-key=hush"),
        &format!("{id}&access-key-id=k&secret-access-key="),
        &format!("{id}&access-key-id=k&secret-access-key=hush&secret-access-key=hush"),
        &format!("{id}&access-key-id=k&secret-access-key=hush&"),
        &format!("{id}&access-key-id=k&secret-access-key=hush#"),
        &format!("{id}&region=hush"),
    ] {
        let error = Destination::parse_with_keys(&format!("r2://bucket?{query}")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"), "{query}");
    }
}

#[test]
fn a_query_s_value_is_in_no_error() {
    for query in [
        "region=r&secret-access-key=hush",
        "secret-access-key=hush&region=r",
        "region=r&region=hush",
        "region=r&hush",
        "hush",
        "hush&region=r",
    ] {
        let error = Destination::parse(&format!("s3://bucket?{query}")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"), "{query}: {error}");
    }
}

/// Spellings that are not the one of their place.
const OTHERS: [&str; 70] = [
    "",
    "s3",
    "s3:",
    "s3://",
    "s3:///a?region=r",
    "S3://bucket?region=r",
    "http://bucket?region=r",
    "s3://bucket",
    "s3://bucket?",
    "s3://bucket?region",
    "s3://bucket?region=",
    "s3://bucket?region=US",
    "s3://bucket?region=r&region=r",
    "s3://bucket?region=r&",
    "s3://bucket?region=r&x=1",
    "s3://bucket?x=1",
    "s3://bucket?region=r?region=r",
    "s3://bucket?region=r#f",
    "s3://bucket:9000?region=r",
    "s3://user:pw@bucket?region=r",
    "s3://bucket//?region=r",
    "s3://bucket/a//b?region=r",
    "s3://bucket/../b?region=r",
    "s3://bucket/./b?region=r",
    "s3://bucket/%2e%2e?region=r",
    "s3://bucket/{DATE}?region=r",
    "s3://bucket/a&b?region=r",
    "s3://bucket/a b?region=r",
    "s3://bücket?region=r",
    "s3://Bucket?region=r",
    "s3://bu?region=r",
    "s3://-bucket?region=r",
    "s3://bucket-?region=r",
    "s3://bu..cket?region=r",
    "s3://10.0.0.1?region=r",
    "s3://xn--bucket?region=r",
    "s3://bucket--x-s3?region=r",
    "r2://bucket",
    "r2://bucket?account-id=",
    "r2://bucket?account-id=0123456789ABCDEF0123456789abcdef",
    "r2://b.c.d?account-id=0123456789abcdef0123456789abcdef",
    "r2://bucket//?account-id=0123456789abcdef0123456789abcdef",
    "gs://",
    "gs://bu",
    "gs://Bucket",
    "gs://_bucket",
    "gs://bu..cket",
    "gs://10.0.0.1",
    "gs://goog-bucket",
    "gs://bucket?",
    "gs://bucket?region=r",
    "gs://bucket//",
    "gs://bucket/../b",
    "gs://bucket/a b",
    "gs://user@bucket",
    "file:",
    "file://",
    "file:///",
    "file:/tmp",
    "file://localhost/tmp",
    "file://tmp",
    "file:///tmp/../etc",
    "file:///tmp//x",
    "file:////tmp",
    "file:///tmp/.",
    "file:///tmp?x",
    "file:///tmp#x",
    "file:///tmp/%2e%2e",
    "file:///tmp\0x",
    "file:///tmp\nx",
];

#[test]
fn every_other_spelling_is_refused() {
    for uri in OTHERS {
        assert!(Destination::parse(uri).is_err(), "{uri:?} was taken");
    }
    let long = format!("s3://bucket/{}?region=r", "a".repeat(URI_BYTES_MAX));
    assert!(matches!(Destination::parse(&long), Err(DestinationError::TooLong { .. })));
    let long = format!("s3://bucket/{}?region=r", "a".repeat(DIRECTORY_BYTES_MAX + 1));
    assert!(matches!(Destination::parse(&long), Err(DestinationError::DirectoryTooLong { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn hostile_input_never_panics_and_what_is_taken_stays_itself(
        scheme in "(s3://|file:///|file://|gs://|r2://|)",
        rest in "([a-z0-9./?&=%#@:\\\\ \0é-]{0,40}|\\PC{0,30})",
        end in "(|[?]region=[a-z0-9-]{0,34})",
    ) {
        let uri = format!("{scheme}{rest}{end}");
        if let Ok(destination) = Destination::parse(&uri) {
            prop_assert_eq!(destination.to_string(), uri);
        }
    }
}
