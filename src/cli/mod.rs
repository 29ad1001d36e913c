//! The command line. Owns what was typed, the API client and everything that is printed for people.
pub mod merge;
