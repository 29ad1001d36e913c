//! Validation by example; evaluation against a naive interpreter and against libpcap.
