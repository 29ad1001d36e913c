//! The files of `ui/dist` inside the binary. Owns which file a path means, its type and how long a browser may keep it; not the
//! headers that every answer has.
//!
//! Invariant: a path is looked up among the embedded names and never becomes a path of this host.

use rust_embed::Embed;
use std::borrow::Cow;

#[derive(Embed)]
#[folder = "ui/dist"]
struct Dist;

/// The list of names, sizes and hashes that the tests hold the files against; it is not served.
const MANIFEST: &str = "files.json";
/// The one page, which shows all paths that are no file.
const PAGE: &str = "index.html";
/// Everything below is named by its content's hash.
const HASHED: &str = "assets/";

/// A file as it is answered.
pub struct File {
    /// Its bytes, or those of its `.br` variant.
    pub bytes: Cow<'static, [u8]>,
    /// `Content-Type`.
    pub kind: &'static str,
    /// Whether `bytes` are compressed by brotli.
    pub is_brotli: bool,
    /// Whether there is a variant, so that caches must look at `Accept-Encoding`.
    pub has_variant: bool,
    /// Whether its name changes with its content.
    pub is_immutable: bool,
    /// Whether it is a worker's script, which has a policy of its own.
    pub is_worker: bool,
}

/// The file that `path`, below `/ui/`, means. A path that names no file and no part of which looks like one is a page.
#[must_use]
pub fn find(path: &str, takes_brotli: bool) -> Option<File> {
    let is_file = path.rsplit('/').next().is_some_and(|last| last.contains('.'));
    let name = if is_file || path.starts_with(HASHED) { path } else { PAGE };
    if name == MANIFEST || name.ends_with(".br") {
        return None;
    }
    let plain = Dist::get(name)?;
    let variant = Dist::get(&format!("{name}.br"));
    let has_variant = variant.is_some();
    let variant = variant.filter(|_| takes_brotli);
    let stem = name.rsplit('/').next().unwrap_or(name);
    Some(File {
        kind: kind(name),
        is_brotli: variant.is_some(),
        has_variant,
        is_immutable: name.starts_with(HASHED),
        is_worker: stem.starts_with("worker"),
        bytes: variant.unwrap_or(plain).data,
    })
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// The names of all files that are served, and the manifest.
#[cfg(test)]
pub(crate) fn embedded() -> (Vec<(String, Vec<u8>)>, Vec<u8>) {
    let files = Dist::iter().filter(|name| name != MANIFEST);
    let files = files.filter_map(|name| Some((name.to_string(), Dist::get(&name)?.data.into_owned())));
    (files.collect(), Dist::get(MANIFEST).map(|file| file.data.into_owned()).unwrap_or_default())
}
