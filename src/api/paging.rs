//! The query of a list: `limit`, `before`, `status`, `type`; and of a progress: `from`, `limit`. Owns its reading; not the page.
//!
//! Invariant: what is no such query is refused by name, so that a misspelt filter does not show everything.

use super::codes::Code;
use super::envelope::Failure;
use super::query::{members, whole};
use crate::engine::Wanted;
use crate::job::{CaptureId, Kind, ObjectRange, Status};
use crate::limits::{LIST_CAPTURES_MAX, PAGE_CAPTURES_MAX, PAGE_OBJECTS_MAX};
use serde_json::Value;

fn wrong(message: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidValue, message)
}

/// What a query asks for.
pub(super) fn wanted(query: &str) -> Result<Wanted, Failure> {
    let mut wanted = Wanted { count_max: LIST_CAPTURES_MAX, ..Wanted::default() };
    for (name, value) in members(Some(query), &["limit", "before", "status", "type"])? {
        match name {
            "limit" => {
                let limit = whole(value)
                    .and_then(|limit| usize::try_from(limit).ok())
                    .filter(|limit| (1..=PAGE_CAPTURES_MAX).contains(limit));
                wanted.count_max = limit.ok_or_else(|| {
                    wrong(format!("limit must be a whole number from 1 to {PAGE_CAPTURES_MAX}"))
                })?;
            }
            "before" => {
                let id = CaptureId::parse(value);
                wanted.before = Some(id.ok_or_else(|| wrong("before must be the id of a capture"))?);
            }
            "status" => {
                // As a form sends commas.
                for one in value.replace("%2C", ",").replace("%2c", ",").split(',') {
                    let status: Status = serde_json::from_value(Value::from(one)).map_err(|_| {
                        wrong("status must be one or more of pending, running, conversion_pending, conversion_running, success, failed, with commas between")
                    })?;
                    wanted.statuses.push(status);
                }
            }
            _ => {
                let kind: Kind = serde_json::from_value(Value::from(value))
                    .map_err(|_| wrong("type must be simple or full"))?;
                wanted.kind = Some(kind);
            }
        }
    }
    Ok(wanted)
}

/// Which objects a progress is to list; all without a query.
pub(super) fn objects(query: &str) -> Result<ObjectRange, Failure> {
    let mut range = ObjectRange::ALL;
    for (name, value) in members(Some(query), &["from", "limit"])? {
        let number = whole(value).and_then(|number| usize::try_from(number).ok());
        if name == "from" {
            range.from = number.ok_or_else(|| wrong("from must be a whole number"))?;
        } else {
            range.count_max = number
                .filter(|limit| *limit <= PAGE_OBJECTS_MAX)
                .ok_or_else(|| wrong(format!("limit must be a whole number from 0 to {PAGE_OBJECTS_MAX}")))?;
        }
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_objects_is_read_whole_or_refused() {
        assert_eq!(objects(""), Ok(ObjectRange::ALL));
        assert_eq!(objects("from=400000&limit=50"), Ok(ObjectRange { from: 400_000, count_max: 50 }));
        assert_eq!(objects("limit=0").map(|range| range.count_max), Ok(0));
        for query in [
            "limit=1001",
            "limit=",
            "from=-1",
            "from=a",
            "offset=3",
            "from",
            "from=1&from=2",
            "from=+1",
            "limit=01",
        ] {
            assert!(objects(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_query_is_read_whole_or_refused() {
        let read = wanted(&format!("limit=7&before={}&status=success%2Cfailed&type=full", "0".repeat(32)));
        let expected = Wanted {
            before: CaptureId::parse(&"0".repeat(32)),
            count_max: 7,
            statuses: vec![Status::Success, Status::Failed],
            kind: Some(Kind::Full),
        };
        assert_eq!(read, Ok(expected));
        for query in [
            "limit=0",
            "limit=101",
            "limit=a",
            "limit=+7",
            "limit=07",
            "limit=7&limit=7",
            "status=failed&status=success",
            "before=x",
            "status=complete",
            "type=",
            "offset=3",
            "limit",
        ] {
            assert!(wanted(query).is_err(), "{query}");
        }
    }
}
