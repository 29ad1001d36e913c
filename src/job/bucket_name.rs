//! How buckets may be called. Owns the stores' naming rules; each function names the rule that is broken, if one is.

fn alphanumeric(byte: &u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Length, characters and ends, which all stores restrict alike; `others` may stand between letters and digits.
fn common(bucket: &str, others: &[u8], rule: &'static str) -> Option<&'static str> {
    let bytes = bucket.as_bytes();
    if !(3..=63).contains(&bytes.len()) {
        Some("bucket names have 3 to 63 characters")
    } else if !bytes.iter().all(|byte| alphanumeric(byte) || others.contains(byte)) {
        Some(rule)
    } else if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        Some("bucket names begin and end with a letter or digit")
    } else {
        None
    }
}

/// Endings that mean another service than a bucket.
fn is_reserved_end(bucket: &str) -> bool {
    let ends = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--xa-s3", "--op-s3", "--table-s3"];
    ends.iter().any(|end| bucket.ends_with(end))
}

/// Rules of general purpose buckets, from the S3 user guide, "Bucket naming rules".
pub(super) fn s3(bucket: &str) -> Option<&'static str> {
    if let Some(rule) = common(bucket, b"-.", "bucket names have only a-z 0-9 . -") {
        Some(rule)
    } else if bucket.contains("..") {
        Some("bucket names have no two dots in a row")
    } else if bucket.parse::<std::net::Ipv4Addr>().is_ok() {
        Some("bucket names do not look like an IP address")
    } else if ["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|prefix| bucket.starts_with(prefix)) {
        Some("this beginning is reserved by S3")
    } else if is_reserved_end(bucket) {
        Some("this ending is reserved by S3")
    } else {
        None
    }
}

/// From Cloudflare's R2 documentation, "Create new buckets", "Bucket-level operations".
pub(super) fn r2(bucket: &str) -> Option<&'static str> {
    let rule = common(bucket, b"-", "bucket names have only a-z 0-9 -");
    // R2 knows none of these, but what speaks S3 to it does.
    rule.or_else(|| is_reserved_end(bucket).then_some("this ending is reserved by S3"))
}

/// From Google's documentation, "About Cloud Storage buckets", "Bucket names"; longer names with dots are left out.
pub(super) fn gcs(bucket: &str) -> Option<&'static str> {
    if let Some(rule) = common(bucket, b"-_.", "bucket names have only a-z 0-9 . - _") {
        Some(rule)
    } else if bucket.contains("..") {
        Some("bucket names have no two dots in a row")
    } else if bucket.parse::<std::net::Ipv4Addr>().is_ok() {
        Some("bucket names do not look like an IP address")
    } else if bucket.starts_with("goog") || bucket.contains("google") {
        Some("goog and google are reserved by Google")
    } else {
        None
    }
}
