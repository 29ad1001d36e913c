//! The host's own credentials, as all its buckets use them. Owns how long they are kept, and when they are asked for again.
//!
//! A create, a view and each attempt of an upload open a bucket. If each asked the chain (STS, a container's or an instance's
//! service), one customer could have the service throttle the host for everybody.
//!
//! Invariant: the chain is asked by one at a time, never within [`FAILED_TIME`] of a failure nor within [`RENEWAL_TIME`] of a renewal,
//! and never in a region that a destination named.

use super::S3Config;
use crate::chain::chain;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::identity::IdentityCache;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_s3::config::{BehaviorVersion, Region, SharedHttpClient};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Mutex;

/// How long a failure stands.
const FAILED_TIME: Duration = Duration::from_secs(2);
/// How long credentials that name no end are kept: an operator may have replaced them.
const KEPT_TIME: Duration = Duration::from_secs(60);
/// Before their end, from when on others are asked for.
const SPARE_TIME: Duration = Duration::from_secs(5 * 60);
/// Between two times that the whole chain is made again.
const RENEWAL_TIME: Duration = Duration::from_secs(30);
/// Where AWS's own requests for credentials go if neither `AWS_REGION` nor the profile names a region.
const REGION: &str = "us-east-1";

/// The chain as it was loaded last, with what it gave.
#[derive(Debug, Default)]
struct State {
    shared: Option<aws_config::SdkConfig>,
    held: Option<(Result<Credentials, String>, Instant)>,
    renewed: Option<Instant>,
}

impl State {
    /// What it gave, as long as that may be used.
    fn current(&self, now: (Instant, SystemTime)) -> Option<&Result<Credentials, String>> {
        let (result, since) = self.held.as_ref()?;
        let age = now.0.duration_since(*since);
        let is_current = match result {
            Err(_) => age < FAILED_TIME,
            Ok(credentials) => match credentials.expiry() {
                Some(end) => age < FAILED_TIME || end > now.1 + SPARE_TIME,
                None => age < KEPT_TIME,
            },
        };
        is_current.then_some(result)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct HostCredentials {
    config: S3Config,
    http: SharedHttpClient,
    state: Mutex<State>,
}

impl HostCredentials {
    pub(super) fn new(config: S3Config, http: SharedHttpClient) -> Self {
        Self { config, http, state: Mutex::default() }
    }

    /// Makes the chain again for the next one who asks: somebody may have put it right.
    pub(super) async fn renew(&self) {
        let (mut state, now) = (self.state.lock().await, Instant::now());
        if state.renewed.is_none_or(|last| now.duration_since(last) >= RENEWAL_TIME) {
            *state = State { renewed: Some(now), ..State::default() };
        }
    }

    /// What every bucket's client begins with.
    pub(super) async fn shared(&self) -> aws_config::SdkConfig {
        self.loaded(&mut *self.state.lock().await).await
    }

    async fn loaded(&self, state: &mut State) -> aws_config::SdkConfig {
        match &state.shared {
            Some(shared) => shared.clone(),
            None => state.shared.insert(self.load().await).clone(),
        }
    }

    async fn get(&self) -> Result<Credentials, String> {
        let mut state = self.state.lock().await;
        if let Some(current) = state.current((Instant::now(), SystemTime::now())) {
            return current.clone();
        }
        let result = match self.loaded(&mut state).await.credentials_provider() {
            Some(chain) => ask(&chain).await,
            None => Err("none are configured".to_owned()),
        };
        state.held = Some((result.clone(), Instant::now()));
        result
    }

    async fn load(&self) -> aws_config::SdkConfig {
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::from_static(REGION));
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.http.clone())
            .identity_cache(IdentityCache::lazy().build())
            .region(region);
        if let Some(keys) = &self.config.credentials {
            let keys = Credentials::new(&keys.access_key_id, &keys.secret_access_key, None, None, "config");
            loader = loader.credentials_provider(keys);
        }
        loader.load().await
    }
}

async fn ask(provider: &SharedCredentialsProvider) -> Result<Credentials, String> {
    provider.provide_credentials().await.map_err(|error| chain(&error))
}

impl ProvideCredentials for HostCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let result: provider::Result = self.get().await.map_err(CredentialsError::provider_error);
            result
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_asked_for_before_they_end_and_after_a_failure_not_at_once() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let is_current = |result: &Result<Credentials, String>, seconds: u64| {
            let (state, later) = (
                State { held: Some((result.clone(), start)), ..State::default() },
                Duration::from_secs(seconds),
            );
            state.current((start + later, wall + later)).is_some()
        };
        let until =
            |seconds| Ok(Credentials::new("k", "s", None, Some(wall + Duration::from_secs(seconds)), "test"));
        assert!(is_current(&until(3600), 3299) && !is_current(&until(3600), 3300));
        // One that the service gave with an end that is near is not asked for with each request.
        assert!(is_current(&until(10), 1) && !is_current(&until(10), 2));
        let endless = Ok(Credentials::new("k", "s", None, None, "test"));
        assert!(is_current(&endless, 59) && !is_current(&endless, 60));
        assert!(is_current(&Err(String::new()), 1) && !is_current(&Err(String::new()), 2));
        assert!(State::default().current((start, wall)).is_none());
    }
}
