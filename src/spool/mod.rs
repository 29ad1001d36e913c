//! Segments on disk. Owns writing, publishing, and the quota.
