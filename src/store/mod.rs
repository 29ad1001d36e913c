//! Durable jobs. Owns the `JobStore` trait and the embedded database behind it.
