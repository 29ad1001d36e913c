//! The parts of a capture that stand in one place. Owns what the name of a manifest stands for; not what is done with the objects.
//!
//! Invariant: a manifest that is there stands for itself alone.

use super::manifest::manifest_name;
use super::verify::{Place, VerifyError, read_manifest};
use super::whole::read_whole;
use crate::job::PartId;
use std::io;

/// Whether a name is one of a manifest.
#[must_use]
pub fn is_manifest(name: &str) -> bool {
    PartId::parse(name).is_some_and(|(part, _)| name == manifest_name(&part))
}

/// The manifests that a name stands for. That of a whole capture stands for those of all parts that are there, if there is none of
/// the name itself: many hosts wrote the capture.
///
/// # Errors
/// When the place cannot be looked into.
pub fn manifests(place: &dyn Place, name: &str) -> Result<Vec<String>, VerifyError> {
    let itself = || Ok(vec![name.to_owned()]);
    let Some((whole, _)) = PartId::parse(name).filter(|(part, _)| part.site.is_none() && is_manifest(name))
    else {
        return itself();
    };
    match place.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // One over many hosts stands for all of theirs, also those that came after it was written.
        _ if read_whole(place, name)?.is_some() => {}
        _ => return itself(),
    }
    let prefix = format!("{}_", whole.stem());
    let names =
        place.list(&prefix).map_err(|source| VerifyError::Read { path: place.path(&prefix), source })?;
    let parts: Vec<_> = names.into_iter().filter(|name| is_manifest(name)).collect();
    if parts.is_empty() { itself() } else { Ok(parts) }
}

/// Names of the objects that a manifest's name stands for, in order of parts and of time.
///
/// # Errors
/// [`VerifyError`] when a manifest cannot be read.
pub fn objects(place: &dyn Place, name: &str) -> Result<Vec<String>, VerifyError> {
    let mut objects = Vec::new();
    for name in manifests(place, name)? {
        let (manifest, _) = read_manifest(place, &name, None)?;
        objects.extend(manifest.objects.into_iter().map(|object| object.name));
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::super::verify::Directory;
    use super::*;
    use crate::deliver::{Manifest, empty_manifest};
    use crate::job::{CaptureId, ObjectInfo};
    use std::fs;
    use std::path::Path;

    fn write(dir: &Path, manifest: &Manifest) -> String {
        let name = manifest_name(&manifest.part());
        fs::write(dir.join(&name), manifest.to_json().unwrap()).unwrap();
        name
    }

    #[test]
    fn the_name_of_a_capture_stands_for_the_parts_of_all_hosts_unless_the_manifest_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let id = CaptureId::random();
        let part = |id: &CaptureId, host: &str| {
            let mut manifest = Manifest { is_part: true, host: host.to_owned(), ..empty_manifest(id) };
            let name = format!("{}.pcap", manifest.part().stem());
            manifest.objects = vec![ObjectInfo { name, ..ObjectInfo::default() }];
            manifest
        };
        let names = [write(dir.path(), &part(&id, "cap1")), write(dir.path(), &part(&id, "cap2"))];
        write(dir.path(), &part(&CaptureId::random(), "cap3"));
        for stranger in ["_ord02_cap4.json.sig", "_ord02_cap4.txt", "_x.json", "_0001.json"] {
            fs::write(dir.path().join(format!("pcap_{id}{stranger}")), "x").unwrap();
        }
        let whole = manifest_name(&PartId::alone(&id));
        let (place, name) = Directory::of(&dir.path().join(&whole));
        assert_eq!(manifests(&place, &name).unwrap(), names);
        assert_eq!(manifests(&place, &names[0]).unwrap(), [names[0].clone()]);
        let stems = names.map(|name| name.replace(".json", ".pcap"));
        assert_eq!(objects(&place, &name).unwrap(), stems);
        write(dir.path(), &empty_manifest(&id));
        assert_eq!(manifests(&place, &name).unwrap(), [whole]);
        let nobody = manifest_name(&PartId::alone(&CaptureId::random()));
        assert_eq!(manifests(&place, &nobody).unwrap(), std::slice::from_ref(&nobody));
        assert!(matches!(objects(&place, &nobody), Err(VerifyError::Read { .. })));
    }
}
