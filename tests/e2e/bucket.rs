//! A bucket of a real S3 server as a customer finds it. Owns the process's way to it and reading back; no expectation.

use crate::weed::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Weed};
use std::path::Path;

pub const BUCKET: &str = "pcaps-bucket";

/// What a process needs to be let into the bucket.
pub fn credentials() -> Vec<(String, String)> {
    let environment = [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Downloads every object whose key begins so; their number.
pub async fn download(weed: &Weed, prefix: &str, folder: &Path) -> usize {
    let client = weed.client();
    let (mut objects, mut next) = (0, None::<String>);
    loop {
        let list = client.list_objects_v2().bucket(BUCKET).prefix(prefix).set_continuation_token(next);
        let list = list.send().await.unwrap();
        for object in list.contents() {
            let key = object.key().unwrap();
            let object = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
            let bytes = object.body.collect().await.unwrap().into_bytes();
            std::fs::write(folder.join(key.rsplit('/').next().unwrap()), bytes).unwrap();
        }
        objects += list.contents().len();
        next = list.next_continuation_token().map(str::to_owned);
        if next.is_none() {
            return objects;
        }
    }
}

/// Keys of the uploads that are neither complete nor aborted.
pub async fn uploads_under_way(weed: &Weed) -> Vec<String> {
    let list = weed.client().list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
    list.uploads().iter().filter_map(|upload| upload.key().map(str::to_owned)).collect()
}
