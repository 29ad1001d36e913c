//! One file through the writer that deliveries use, for `benches/run upload`: `upload FILE DESTINATION NAME`.
//!
//! Without arguments it does nothing, so that `cargo bench` and `cargo test --benches` pass. The endpoint comes from
//! `AWS_ENDPOINT_URL_S3`, credentials from the standard chain, everything else is the default of the config.

use bytes::BytesMut;
use std::io::Read;
use std::time::Instant;
use trawl::job::Destination;
use trawl::upload::{S3Config, Stores, StoresConfig};

/// As the merge hands them on.
const CHUNK_BYTES: usize = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let [file, destination, name] = args.as_slice() else { return Ok(()) };
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "a provider is installed")?;
    tokio::runtime::Runtime::new()?.block_on(send(file, destination, name))
}

async fn send(file: &str, destination: &str, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = std::env::var("AWS_ENDPOINT_URL_S3").ok();
    let s3 = S3Config { endpoint, ..S3Config::default() };
    let stores = Stores::new(StoresConfig { s3, ..StoresConfig::default() })?;
    let store = stores.open(&Destination::parse(destination)?).await?;
    let (mut file, began) = (std::fs::File::open(file)?, Instant::now());
    let mut writer = store.begin(name).await?;
    loop {
        let mut chunk = BytesMut::zeroed(CHUNK_BYTES);
        let len = file.read(&mut chunk)?;
        if len == 0 {
            break;
        }
        chunk.truncate(len);
        writer.write(chunk.freeze()).await?;
        // As a delivery with a journal does.
        let _kept = writer.checkpoint();
    }
    let stored = writer.finish().await?;
    println!("{} bytes in {:.3} s", stored.bytes, began.elapsed().as_secs_f64());
    Ok(())
}
