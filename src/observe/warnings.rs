//! Warnings and errors of the log, for the journal that operators see. Owns the words of a line there; not the log's own form.
//!
//! Invariant: a line that cannot be kept harms nobody, and nobody waits for it.

use crate::dashboard::{Cause, journal};
use std::fmt::{Debug, Write};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// See the module.
pub(super) struct Warnings;

#[derive(Default)]
struct Words {
    message: String,
    fields: String,
    account: Option<String>,
    has_peer: bool,
}

impl Words {
    /// A line that names a peer is of somebody who has shown no right credential, whatever account he names. What a store says,
    /// and what libraries say of it, a customer can cause with a bucket of his own.
    fn cause(&mut self, target: &str) -> Cause {
        let is_ours = target == "trawl" || target.starts_with("trawl::");
        match self.account.take() {
            _ if self.has_peer => Cause::Stranger,
            Some(account) => Cause::Account(account),
            None if !is_ours || target.starts_with("trawl::upload") => Cause::Stranger,
            None => Cause::Host,
        }
    }
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "account" => self.account = Some(format!("{value:?}")),
            "peer" | "last_peer" => self.has_peer = true,
            _ => {}
        }
        // Writing to a string cannot fail.
        let _never = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut words = Words::default();
        event.record(&mut words);
        let cause = words.cause(event.metadata().target());
        journal().warn(level == Level::ERROR, &(words.message + &words.fields), cause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn what_a_bucket_can_cause_is_not_of_the_host() {
        let cause = |target: &str, account: Option<&str>| {
            let account = account.map(str::to_owned);
            Words { account, ..Words::default() }.cause(target)
        };
        assert_eq!(cause("trawl::host::serve", None), Cause::Host);
        assert_eq!(cause("trawl::upload::s3::multipart", None), Cause::Stranger);
        assert_eq!(cause("aws_sdk_s3::http_response_checksum", None), Cause::Stranger);
        assert_eq!(cause("trawl::engine::machine::drain", Some("a")), Cause::Account("a".to_owned()));
    }

    #[test]
    fn a_warning_is_a_line_of_the_journal_with_its_fields_and_what_is_less_is_none() {
        let subscriber = tracing_subscriber::registry().with(Warnings);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("nothing of note");
            tracing::warn!(queue = 3, "blocks run out");
            tracing::warn!(account = %"a", "wrong answer");
            tracing::warn!(target: "aws_config", "no credentials");
            tracing::warn!(target: "trawl::upload::s3", "an upload could not be given up");
            tracing::warn!(peer = %"192.0.2.1", account = ?"x", "authentication failed");
        });
        let lines = journal().after(0).into_iter();
        let lines: Vec<_> = lines.map(|line| (line.kind, line.message, line.account)).collect();
        let expected = [
            ("warning", "blocks run out queue=3".to_owned(), None),
            ("warning", "wrong answer account=a".to_owned(), Some("a".to_owned())),
            ("warning", "no credentials".to_owned(), None),
            ("warning", "an upload could not be given up".to_owned(), None),
            ("warning", "authentication failed peer=192.0.2.1 account=\"x\"".to_owned(), None),
        ];
        assert_eq!(lines, expected);
    }
}
