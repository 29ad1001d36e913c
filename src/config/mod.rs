//! The config file: as written, as resolved, and held against the host.
