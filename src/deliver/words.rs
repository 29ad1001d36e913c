//! What is said of a failure, twice: to the customer, and to the operator. Owns the two texts and how one is made of an error;
//! not where they are shown (`engine` logs the operator's and keeps the customer's).
//!
//! Invariant: the customer's text names no file of this host. What he named himself, a bucket or a `file://` directory, is his. The kind
//! is a constant, so that it names neither.

use crate::upload::UploadError;
use std::fmt;

/// What a customer is told of a failure that only the operator can look at.
const OF_HOST: &str = "this host failed at its own files; its operator finds the reason in its log";
/// The kind of what has no other.
const OF_DELIVERY: &str = "the delivery failed; this host's log says how";

/// See the module. `Display` is the operator's text; a customer's must be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    customer: String,
    operator: String,
    kind: &'static str,
}

impl Words {
    /// A text without anything of this host's in it.
    pub fn alike(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { customer: text.clone(), operator: text, kind: OF_DELIVERY }
    }

    /// A failure of this host, whose text may name its files.
    pub fn of_host(operator: impl Into<String>) -> Self {
        Self { customer: OF_HOST.to_owned(), operator: operator.into(), kind: OF_HOST }
    }

    /// The same, with a text for the customer that says more.
    pub fn told(self, customer: &str) -> Self {
        Self { customer: customer.to_owned(), ..self }
    }

    /// A failed upload; `is_customers`: into a place that the customer named.
    pub fn of_upload(error: &UploadError, is_customers: bool) -> Self {
        let operator = error.to_string();
        match error.customer_text() {
            Some(customer) if is_customers => Self { customer, operator, kind: error.kind() },
            _ => Self::of_host(operator),
        }
    }

    /// What kind of failure it is, for operators who must not read where a customer's packets go.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Both texts, put into a longer one.
    pub fn within(&self, longer: impl Fn(&str) -> String) -> Self {
        Self { customer: longer(&self.customer), operator: longer(&self.operator), kind: self.kind }
    }

    pub fn customer(&self) -> &str {
        &self.customer
    }

    pub fn into_customer(self) -> String {
        self.customer
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.operator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::path::PathBuf;

    #[test]
    fn a_customer_reads_of_his_own_directory_and_of_none_of_the_hosts() {
        let path = || PathBuf::from("/srv/place/x");
        let source = || io::Error::other("no");
        let own = UploadError::Disk { action: "open", path: path(), source: source() };
        assert!(Words::of_upload(&own, true).customer().contains("/srv/place"));
        assert!(!Words::of_upload(&own, false).customer().contains("/srv/place"));
        let journal = UploadError::Journal { path: path(), source: source() };
        let keys =
            UploadError::HostCredentials { place: "bucket b".to_owned(), detail: "/srv/place/x".to_owned() };
        for error in [journal, keys] {
            let words = Words::of_upload(&error, true).within(|text| format!("once more: {text}"));
            assert!(
                !words.customer().contains("/srv/place") && words.to_string().contains("/srv/place"),
                "{words}"
            );
            assert!(words.customer().starts_with("once more: "));
        }
    }
}
