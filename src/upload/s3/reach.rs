//! Where requests to a bucket may go. Owns the comparison of the address that the SDK makes up with those that are allowed.
//!
//! The SDK makes the address of the bucket's name and region, which a customer chooses: some endings of names lead it to other
//! services although an endpoint is configured, and regions of other partitions to hosts of others.
//!
//! Invariant: no request leaves for a host but the configured endpoint, or, without one, one of AWS's own domain in the host's own
//! partition.

use aws_sdk_s3::config::endpoint::{DefaultResolver, EndpointFuture, Params, ResolveEndpoint};
use reqwest::Url;

/// Domains of AWS by the beginning of a region's name, from the SDK's `partitions.json`; [`AWS`] for all others.
const PARTITIONS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("us-isof-", "csp.hci.ic.gov"),
];
const AWS: &str = "amazonaws.com";

fn domain(region: &str) -> &'static str {
    PARTITIONS.iter().find(|(begin, _)| region.starts_with(begin)).map_or(AWS, |(_, domain)| domain)
}

/// See the module. A resolver, so that no request can be forgotten.
#[derive(Debug)]
pub(super) struct Reach {
    resolver: DefaultResolver,
    /// Scheme, host and port of the configured endpoint.
    endpoint: Option<String>,
    /// Of AWS.
    domain: &'static str,
}

/// `scheme://host:port`, with the port that the scheme means.
fn origin(address: &str) -> Option<(String, String)> {
    let url = Url::parse(address).ok()?;
    Some((url.scheme().to_owned(), format!("{}:{}", url.host_str()?, url.port_or_known_default()?)))
}

impl Reach {
    /// To an endpoint, or to AWS in the partition of the host's own region.
    pub(super) fn new(endpoint: Option<&str>, region: Option<&str>) -> Self {
        Self {
            resolver: DefaultResolver::new(),
            endpoint: endpoint.map(str::to_owned),
            domain: domain(region.unwrap_or("")),
        }
    }

    /// Whether a request to this address may leave.
    fn allows(&self, address: &str) -> bool {
        let Some((scheme, host)) = origin(address) else { return false };
        let below =
            |own: &str| host.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        match &self.endpoint {
            Some(endpoint) => origin(endpoint).is_some_and(|own| own.0 == scheme && below(&own.1)),
            None => scheme == "https" && below(&format!("{}:443", self.domain)),
        }
    }
}

impl ResolveEndpoint for Reach {
    fn resolve_endpoint<'a>(&'a self, params: &'a Params) -> EndpointFuture<'a> {
        let made = self.resolver.resolve_endpoint(params);
        EndpointFuture::new(async move {
            let made = made.await?;
            if self.allows(made.url()) {
                return Ok(made);
            }
            let allowed = self.endpoint.as_deref().unwrap_or(self.domain);
            Err(format!(
                "the name of the bucket or its region leads to {}, and this host asks {allowed} alone",
                made.url()
            )
            .into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn reaches(
        endpoint: Option<&str>,
        own: &str,
        bucket: &str,
        region: &str,
        path_style: bool,
    ) -> bool {
        let mut params = Params::builder().bucket(bucket).region(region).force_path_style(path_style);
        if let Some(endpoint) = endpoint {
            params = params.endpoint(endpoint);
        }
        let reach = Reach::new(endpoint, Some(own));
        reach.resolve_endpoint(&params.build().unwrap()).await.is_ok()
    }

    #[tokio::test]
    async fn no_bucket_and_no_region_leads_past_the_endpoint() {
        let outpost = "test-accessp-o0b1d075431d83bebde8xz5w8ijx1qzlbp3i3kuse10--op-s3";
        let strange = [
            outpost,
            "test-accessp-o0b1d075431d83bebde8xz5w8ijx1qzlbp3i3ebeta0--op-s3",
            "a--use1-az4--xa-s3",
            "a--use1-az4--x-s3",
            "arn:aws:s3:us-west-2:123456789012:accesspoint:x",
            "arn:aws:s3::123456789012:accesspoint:x.mrap",
            "arn:aws:s3-object-lambda:us-west-2:123456789012:accesspoint/x",
        ];
        for endpoint in ["http://127.0.0.1:9000", "https://minio.corp.test"] {
            for path_style in [true, false] {
                for bucket in strange {
                    let reach = Reach::new(Some(endpoint), None);
                    let params = Params::builder().bucket(bucket).region("us-west-2").endpoint(endpoint);
                    let params = params.force_path_style(path_style).build().unwrap();
                    if let Ok(made) = reach.resolve_endpoint(&params).await {
                        assert!(
                            made.url().contains("127.0.0.1:9000") || made.url().contains("minio.corp.test"),
                            "{bucket}: {}",
                            made.url()
                        );
                    }
                }
                assert!(reaches(Some(endpoint), "us-east-1", "bucket", "zz-anything-1", path_style).await);
            }
        }
        assert!(!reaches(Some("https://minio.corp.test"), "us-east-1", outpost, "us-west-2", true).await);
        for (own, region, may) in [
            ("us-east-1", "eu-west-1", true),
            ("us-east-1", "cn-north-1", false),
            ("us-east-1", "us-iso-east-1", false),
            ("us-east-1", "eu-isoe-west-1", false),
            ("cn-north-1", "cn-northwest-1", true),
            ("cn-north-1", "us-east-1", false),
        ] {
            assert_eq!(reaches(None, own, "bucket", region, false).await, may, "{own} {region}");
        }
    }

    #[test]
    fn a_host_that_ends_like_the_endpoint_is_another_one() {
        let reach = Reach::new(Some("https://minio.corp.test:9000/base"), None);
        for (address, may) in [
            ("https://minio.corp.test:9000/bucket", true),
            ("https://bucket.minio.corp.test:9000/", true),
            ("https://evilminio.corp.test:9000/", false),
            ("https://minio.corp.test/", false),
            ("http://minio.corp.test:9000/", false),
            ("https://minio.corp.test:9000@evil.test/", false),
        ] {
            assert_eq!(reach.allows(address), may, "{address}");
        }
        assert!(!Reach::new(None, None).allows("https://s3.us-east-1.notamazonaws.com/"));
        assert!(!Reach::new(None, None).allows("http://s3.us-east-1.amazonaws.com/"));
    }
}
