//! The audit log, signatures and time stamps. Owns the rules about them.

use super::file::{self, File};
use super::plan::ManifestPlan;
use super::rules::Rules;
use crate::audit::AuditConfig;
use crate::limits;
use crate::stamp::AuthorityConfig;
use std::path::Path;
use std::time::Duration;

pub(super) fn audit(rules: &mut Rules, audit: &file::Audit, store: &Path) -> Option<AuditConfig> {
    let why = "a file has room for some thousand lines, and is checked when trawl starts";
    let bytes = (limits::AUDIT_FILE_BYTES_MIN, limits::AUDIT_FILE_BYTES_MAX);
    let file_bytes = rules.size("audit.file_bytes", audit.file_bytes, bytes, why);
    let why = "the log has at least two files (audit.file_bytes), so that one is there while the next begins";
    let bytes_max = rules.size("audit.bytes_max", audit.bytes_max, (2 * file_bytes, 1 << 50), why);
    let dir = audit.dir.as_deref().map(|dir| rules.path("audit.dir", dir))?;
    let mut head_file = store.as_os_str().to_owned();
    head_file.push(".audit");
    let head_file = Some(head_file.into());
    Some(AuditConfig { dir, bytes_max, file_bytes, required: audit.required, head_file })
}

pub(super) fn manifest(rules: &mut Rules, file: &File) -> ManifestPlan {
    let (manifest, upload) = (&file.manifest, &file.upload);
    let key = manifest.signing_key_file.as_deref();
    let signing_key_file = key.map(|path| rules.path("manifest.signing_key_file", path));
    let why = "an authority answers in a second; each capture that ends waits so long while it does not, and holds its place";
    let (name, seconds) = ("manifest.timestamp_seconds_max", manifest.timestamp_seconds_max);
    let patience = Duration::from_secs(rules.range(name, seconds, (1, 3600), why));
    let anchors = manifest.timestamp_ca_file.as_deref();
    let anchors = anchors.map(|path| rules.path("manifest.timestamp_ca_file", path));
    let authority = manifest.timestamp_url.as_deref().map(|url| AuthorityConfig {
        url: authority_url(rules, url),
        anchors,
        patience,
        proxy: upload.proxy.clone(),
        ca_file: upload.ca_file.clone(),
    });
    ManifestPlan { signing_key_file, authority }
}

fn authority_url(rules: &mut Rules, url: &str) -> String {
    let legal = reqwest::Url::parse(url).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    });
    if !legal {
        let advice = "write the authority's address, such as \"https://tsa.example/tsr\", without a name and a password";
        rules.wrong("manifest.timestamp_url", "(not shown)", advice);
    }
    url.to_owned()
}
