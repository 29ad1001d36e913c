//! What stands behind the question mark, and whole numbers in it and in paths. Owns their reading; not what they mean.
//!
//! Invariant: a member that the route has not, or that is there twice, is refused by name, so that none decides in silence; a number is
//! written in one way.

use super::codes::Code;
use super::envelope::Failure;

/// A whole number in decimal digits, without a sign and without zeros before it.
pub(super) fn whole(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// The members of a query, which can be those of `names`, with their values.
pub(super) fn members<'a>(
    query: Option<&'a str>,
    names: &[&'static str],
) -> Result<Vec<(&'static str, &'a str)>, Failure> {
    let mut found: Vec<(&'static str, &str)> = Vec::new();
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(name) = names.iter().find(|own| **own == name) else {
            let message = format!("the query has an unknown member; there is {}", names.join(", "));
            return Err(Failure::new(Code::UnknownMember, message));
        };
        if found.iter().any(|(other, _)| other == name) {
            return Err(Failure::new(
                Code::InvalidValue,
                format!("the query has {name} twice; send it once"),
            ));
        }
        found.push((name, value));
    }
    Ok(found)
}

/// The number behind `name` in a query that can have nothing else.
pub(super) fn number(query: Option<&str>, name: &'static str) -> Result<Option<u64>, Failure> {
    let Some((_, value)) = members(query, &[name])?.pop() else { return Ok(None) };
    let wrong = || Failure::new(Code::InvalidValue, format!("{name} is no whole number, or too large"));
    whole(value).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_form_and_a_member_is_there_once() {
        for (text, expected) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("+0", None),
            ("+7", None),
            ("-0", None),
            ("00", None),
            ("07", None),
            ("7 ", None),
            ("7.0", None),
            ("", None),
            ("٣", None),
        ] {
            assert_eq!(whole(text), expected, "{text}");
        }
        let since = |query| number(Some(query), "since");
        assert_eq!((number(None, "since"), since(""), since("since=4")), (Ok(None), Ok(None), Ok(Some(4))));
        for query in [
            "since=4&since=4",
            "since=4&since=5",
            "sinc=4",
            "since",
            "since=",
            "since=%34",
            "since=+4",
            "a=1&since=4",
        ] {
            assert!(since(query).is_err(), "{query}");
        }
        assert_eq!(members(Some("b=1&&a"), &["a", "b"]), Ok(vec![("b", "1"), ("a", "")]));
    }
}
