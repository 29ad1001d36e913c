//! Warnings and errors of the log, for the journal that operators see. Owns the words of a line there; not the log's own form.
//!
//! Invariant: a line that cannot be kept harms nobody, and nobody waits for it.

use crate::dashboard::journal;
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
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
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
        journal().warn(level == Level::ERROR, &(words.message + &words.fields));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn a_warning_is_a_line_of_the_journal_with_its_fields_and_what_is_less_is_none() {
        let subscriber = tracing_subscriber::registry().with(Warnings);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("nothing of note");
            tracing::warn!(queue = 3, "blocks run out");
        });
        let lines: Vec<_> = journal().after(0).into_iter().map(|line| (line.kind, line.message)).collect();
        assert_eq!(lines, [("warning", "blocks run out queue=3".to_owned())]);
    }
}
