//! `trawl capture list`. Owns the filters and the way through the server's pages; not the table.
//!
//! Invariant: without an option the answer is the server's own list, as every server of this API has it.

use super::args::{CaptureType, ListArgs};
use super::client::{self, Client};
use crate::limits::PAGE_CAPTURES_MAX;
use jiff::{Span, SpanRelativeTo, Timestamp};
use serde_json::Value;

/// The captures that `args` ask for, newest first.
///
/// # Errors
/// What the server said, or a time that is none.
pub async fn list(client: &Client, args: &ListArgs) -> Result<Vec<Value>, client::Error> {
    let is_plain = args.status.is_empty() && args.kind.is_none() && args.since.is_none() && !args.all;
    if is_plain && args.limit.is_none() {
        return client.list().await;
    }
    let since = args.since.as_deref().map(|text| since(text, Timestamp::now())).transpose()?;
    let (wanted, filters) = (args.limit.unwrap_or(usize::MAX), filters(args)?);
    let (mut list, mut before) = (Vec::new(), None::<String>);
    while list.len() < wanted {
        let count = (wanted - list.len()).min(PAGE_CAPTURES_MAX);
        let behind = before.map_or_else(String::new, |id| format!("&before={id}"));
        let (page, next) = client.page(&format!("limit={count}{filters}{behind}")).await?;
        let all = page.len();
        let is_new = |capture: &&Value| since.is_none_or(|since| is_since(capture, since));
        let new = page.iter().take_while(is_new).count();
        list.extend(page.into_iter().take(new));
        before = next.filter(|_| new == all);
        if before.is_none() {
            break;
        }
    }
    Ok(list)
}

fn is_since(capture: &Value, since: Timestamp) -> bool {
    let submitted = capture.get("submitted").and_then(Value::as_str).and_then(|text| text.parse().ok());
    submitted.is_none_or(|submitted: Timestamp| submitted >= since)
}

fn filters(args: &ListArgs) -> Result<String, client::Error> {
    let mut query = String::new();
    if !args.status.is_empty() {
        let legal = |status: &String| status.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !args.status.iter().all(legal) {
            let advice =
                "one or more of pending, running, conversion_pending, conversion_running, success, failed";
            return Err(client::Error::Argument { name: "--status", value: args.status.join(","), advice });
        }
        query += &format!("&status={}", args.status.join(","));
    }
    if let Some(kind) = args.kind {
        query += match kind {
            CaptureType::Full => "&type=full",
            CaptureType::Simple => "&type=simple",
        };
    }
    Ok(query)
}

/// A time, or so long ago.
fn since(text: &str, now: Timestamp) -> Result<Timestamp, client::Error> {
    let ago = |text: &str| {
        let span: Span = text.parse().ok()?;
        now.checked_sub(span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?).ok()
    };
    text.parse().ok().or_else(|| ago(text)).ok_or_else(|| client::Error::Argument {
        name: "--since",
        value: text.to_owned(),
        advice: "a time such as 2026-11-27T06:00:00Z, or how long ago: 90m, 36h, 7d",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_one_of_the_clock_or_so_long_ago_and_else_refused() {
        let now: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
        for (text, time) in [
            ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"),
            ("36h", "2026-11-26T00:00:00Z"),
            ("7d", "2026-11-20T12:00:00Z"),
            ("90m", "2026-11-27T10:30:00Z"),
        ] {
            assert_eq!(since(text, now).unwrap(), time.parse().unwrap(), "{text}");
        }
        for text in ["", "yesterday", "7", "2026-11-01"] {
            let error = since(text, now).unwrap_err().to_string();
            assert!(error.contains("--since") && error.contains("36h"), "{text}: {error}");
        }
    }
}
